// delegate asks an agent's Delegated Identity API with the client that SPIRE's SDK generates, and reports what it gets.
//
//	delegate watch -socket /path [-pid N | -selector type:value]   one line an update, until stopped
//	delegate jwt   -socket /path [-pid N | -selector type:value] -audience A
//	delegate bundles -socket /path                                 the trust domains of the first message of each kind
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"

	delegated "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"mutual.test/peers/report"
)

func main() {
	if len(os.Args) < 2 {
		report.Fail(errors.New("expected watch, jwt or bundles"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	socket := flags.String("socket", "", "the admin socket, a path")
	pid := flags.Int("pid", 0, "the workload's pid")
	selector := flags.String("selector", "", "the workload's selector, type:value")
	audience := flags.String("audience", "", "who the token is for")
	_ = flags.Parse(os.Args[2:])

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	conn, err := grpc.NewClient("unix:"+*socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		report.Fail(err)
	}
	defer conn.Close()
	client := delegated.NewDelegatedIdentityClient(conn)

	var selectors []*types.Selector
	if kind, value, found := strings.Cut(*selector, ":"); found {
		selectors = append(selectors, &types.Selector{Type: kind, Value: value})
	}
	switch os.Args[1] {
	case "watch":
		err = watch(ctx, client, &delegated.SubscribeToX509SVIDsRequest{Pid: int32(*pid), Selectors: selectors})
	case "jwt":
		err = fetchJWT(ctx, client, &delegated.FetchJWTSVIDsRequest{
			Pid: int32(*pid), Selectors: selectors, Audience: []string{*audience},
		})
	case "bundles":
		err = bundles(ctx, client)
	default:
		err = fmt.Errorf("no such verb %q", os.Args[1])
	}
	if err != nil && ctx.Err() == nil {
		report.Fail(err)
	}
}

func idOf(id *types.SPIFFEID) string { return "spiffe://" + id.TrustDomain + id.Path }

func watch(ctx context.Context, client delegated.DelegatedIdentityClient, request *delegated.SubscribeToX509SVIDsRequest) error {
	stream, err := client.SubscribeToX509SVIDs(ctx, request)
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		ids, serials := []string{}, []string{}
		for _, svid := range response.X509Svids {
			leaf, err := x509.ParseCertificate(svid.X509Svid.CertChain[0])
			if err != nil {
				return err
			}
			if _, err := x509.ParsePKCS8PrivateKey(svid.X509SvidKey); err != nil {
				return err
			}
			ids = append(ids, idOf(svid.X509Svid.Id))
			serials = append(serials, leaf.SerialNumber.String())
		}
		report.Event("update", map[string]any{"ids": ids, "serials": serials})
	}
}

func fetchJWT(ctx context.Context, client delegated.DelegatedIdentityClient, request *delegated.FetchJWTSVIDsRequest) error {
	response, err := client.FetchJWTSVIDs(ctx, request)
	if err != nil {
		return err
	}
	for _, svid := range response.Svids {
		report.Event("jwt", map[string]any{"id": idOf(svid.Id), "token": svid.Token})
	}
	return nil
}

func bundles(ctx context.Context, client delegated.DelegatedIdentityClient) error {
	x509s, err := client.SubscribeToX509Bundles(ctx, &delegated.SubscribeToX509BundlesRequest{})
	if err != nil {
		return err
	}
	certificates, err := x509s.Recv()
	if err != nil {
		return err
	}
	jwts, err := client.SubscribeToJWTBundles(ctx, &delegated.SubscribeToJWTBundlesRequest{})
	if err != nil {
		return err
	}
	keys, err := jwts.Recv()
	if err != nil {
		return err
	}
	report.Event("bundles", map[string]any{"x509": names(certificates.CaCertificates), "jwt": names(keys.Bundles)})
	return nil
}

func names(bundles map[string][]byte) []string {
	found := []string{}
	for name := range bundles {
		found = append(found, name)
	}
	sort.Strings(found)
	return found
}
