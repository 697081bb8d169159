// delegate asks an agent's Delegated Identity API with the client that SPIRE's SDK generates, and reports what it gets.
//
//	delegate watch -socket /path [-pid N | -selector type:value]   one line an update, until stopped
//	delegate jwt   -socket /path [-pid N | -selector type:value] -audience A
//	delegate follow -socket /path [-pid N | -selector type:value]  SVIDs and X.509 bundles together: one line when either changes
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
	"sync"
	"syscall"

	delegated "github.com/spiffe/spire-api-sdk/proto/spire/api/agent/delegatedidentity/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"mutual.test/peers/report"
)

func main() {
	if len(os.Args) < 2 {
		report.Fail(errors.New("expected watch, follow, jwt or bundles"))
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
	case "follow":
		err = follow(ctx, client, &delegated.SubscribeToX509SVIDsRequest{Pid: int32(*pid), Selectors: selectors})
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

// follow holds both streams open and says, whenever one of them brings something, whether every SVID leads to an authority.
func follow(ctx context.Context, client delegated.DelegatedIdentityClient, request *delegated.SubscribeToX509SVIDsRequest) error {
	svids, err := client.SubscribeToX509SVIDs(ctx, request)
	if err != nil {
		return err
	}
	bundles, err := client.SubscribeToX509Bundles(ctx, &delegated.SubscribeToX509BundlesRequest{})
	if err != nil {
		return err
	}
	var lock sync.Mutex
	var chains [][]*x509.Certificate
	var roots []*x509.Certificate
	state := func() {
		pool, ids, keys, verified := x509.NewCertPool(), []string{}, []string{}, len(chains) > 0
		for _, root := range roots {
			pool.AddCert(root)
			keys = append(keys, fmt.Sprintf("%x", root.SubjectKeyId))
		}
		serials, signers := []string{}, []string{}
		for _, chain := range chains {
			above := x509.NewCertPool()
			for _, one := range chain[1:] {
				above.AddCert(one)
			}
			_, err := chain[0].Verify(x509.VerifyOptions{
				Roots: pool, Intermediates: above, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
			})
			verified = verified && err == nil
			ids = append(ids, chain[0].URIs[0].String())
			serials = append(serials, chain[0].SerialNumber.String())
			signers = append(signers, fmt.Sprintf("%x", chain[0].AuthorityKeyId))
		}
		report.Event("state", map[string]any{
			"ids": ids, "serials": serials, "signers": signers, "authorities": keys, "verified": verified,
		})
	}
	failed := make(chan error, 2)
	go func() {
		for {
			response, err := svids.Recv()
			if err != nil {
				failed <- err
				return
			}
			var found [][]*x509.Certificate
			for _, svid := range response.X509Svids {
				chain := []*x509.Certificate{}
				for _, der := range svid.X509Svid.CertChain {
					one, err := x509.ParseCertificate(der)
					if err != nil {
						failed <- err
						return
					}
					chain = append(chain, one)
				}
				found = append(found, chain)
			}
			lock.Lock()
			chains = found
			state()
			lock.Unlock()
		}
	}()
	go func() {
		for {
			response, err := bundles.Recv()
			if err != nil {
				failed <- err
				return
			}
			found, err := x509.ParseCertificates(response.CaCertificates["spiffe://example.org"])
			if err != nil {
				failed <- err
				return
			}
			lock.Lock()
			roots = found
			state()
			lock.Unlock()
		}
	}()
	return <-failed
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
