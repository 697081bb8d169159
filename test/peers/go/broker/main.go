// broker asks an agent's SPIFFE Broker API with the client that go-spiffe generates, over mutual TLS with an SVID that
// go-spiffe keeps fresh, and reports what it gets.
//
//	broker watch   REFERENCE   one line an update, until stopped; a new stream when the SVID it came with has expired
//	broker jwt     REFERENCE -audience A
//	broker bundles REFERENCE   the trust domains of the first message of each kind
//
// REFERENCE is -pid N, -pod NAMESPACE/NAME and/or -uid UID, -type URL (an empty message of that type), or nothing.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"flag"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"

	"github.com/spiffe/go-spiffe/v2/exp/proto/spiffe/broker"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"mutual.test/peers/report"
)

type options struct {
	verb, workload, endpoint, agent, header string
	pod, uid, kind, audience                string
	pid                                     int
}

func main() {
	if len(os.Args) < 2 {
		report.Fail(errors.New("expected watch, jwt or bundles"))
	}
	o := options{verb: os.Args[1]}
	flags := flag.NewFlagSet(o.verb, flag.ExitOnError)
	flags.StringVar(&o.workload, "workload", "", "the Workload API, a path")
	flags.StringVar(&o.endpoint, "endpoint", "", "the broker endpoint, as gRPC names it")
	flags.StringVar(&o.agent, "agent", "", "the SPIFFE ID of the agent")
	flags.StringVar(&o.header, "header", "true", "the value of the security header; empty sends none")
	flags.IntVar(&o.pid, "pid", 0, "the workload's pid")
	flags.StringVar(&o.pod, "pod", "", "the workload's pod, NAMESPACE/NAME")
	flags.StringVar(&o.uid, "uid", "", "the UID of the pod")
	flags.StringVar(&o.kind, "type", "", "the type URL of another reference")
	flags.StringVar(&o.audience, "audience", "", "who the token is for")
	_ = flags.Parse(os.Args[2:])
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, o); err != nil && ctx.Err() == nil {
		refused(err)
	}
}

// refused reports a failure as the client sees it, with the detail where there is one.
func refused(err error) {
	found := status.Convert(err)
	fields := map[string]any{"code": found.Code().String(), "message": found.Message()}
	for _, detail := range found.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			fields["reason"], fields["domain"], fields["metadata"] = info.Reason, info.Domain, info.Metadata
		}
	}
	report.Event("refused", fields)
	os.Exit(1)
}

func run(ctx context.Context, o options) error {
	agent, err := spiffeid.FromString(o.agent)
	if err != nil {
		return err
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+o.workload)))
	if err != nil {
		return err
	}
	defer source.Close()
	security := credentials.NewTLS(tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeID(agent)))
	conn, err := grpc.NewClient(o.endpoint, grpc.WithTransportCredentials(security), grpc.WithAuthority("agent"))
	if err != nil {
		return err
	}
	defer conn.Close()
	if o.header != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "broker.spiffe.io", o.header)
	}
	client := broker.NewAPIClient(conn)
	reference, err := referenceOf(o)
	if err != nil {
		return err
	}
	switch o.verb {
	case "watch":
		return watch(ctx, client, reference)
	case "jwt":
		return jwt(ctx, client, &broker.FetchJWTSVIDRequest{Reference: reference, Audience: strings.Fields(o.audience)})
	case "bundles":
		return bundles(ctx, client, reference)
	}
	return errors.New("no such verb")
}

func referenceOf(o options) (*broker.WorkloadReference, error) {
	var message proto.Message
	switch {
	case o.kind != "":
		return &broker.WorkloadReference{Reference: &anypb.Any{TypeUrl: o.kind}}, nil
	case o.pod != "" || o.uid != "":
		object := &broker.KubernetesObjectReference{
			Type: &broker.KubernetesObjectType{Plural: "pods", Group: "core"}, Uid: o.uid,
		}
		if namespace, name, found := strings.Cut(o.pod, "/"); found {
			object.Key = &broker.KubernetesObjectKey{Namespace: namespace, Name: name}
		}
		message = object
	case o.pid != 0:
		message = &broker.WorkloadPIDReference{Pid: int32(o.pid)}
	default:
		return nil, nil
	}
	packed, err := anypb.New(message)
	return &broker.WorkloadReference{Reference: packed}, err
}

func watch(ctx context.Context, client broker.APIClient, reference *broker.WorkloadReference) error {
	for {
		err := follow(ctx, client, reference)
		if status.Code(err) != codes.Unauthenticated {
			return err
		}
		// The source has a newer SVID, and the next connection shows it.
		report.Event("again", map[string]any{"message": status.Convert(err).Message()})
	}
}

func follow(ctx context.Context, client broker.APIClient, reference *broker.WorkloadReference) error {
	stream, err := client.SubscribeToX509SVID(ctx, &broker.SubscribeToX509SVIDRequest{Reference: reference})
	if err != nil {
		return err
	}
	for {
		response, err := stream.Recv()
		if err != nil {
			return err
		}
		ids, serials, hints, verified := []string{}, []string{}, []string{}, true
		for _, svid := range response.Svids {
			chain, err := x509.ParseCertificates(svid.X509Svid)
			if err != nil {
				return err
			}
			if _, err := x509.ParsePKCS8PrivateKey(svid.X509SvidKey); err != nil {
				return err
			}
			ids = append(ids, svid.SpiffeId)
			serials = append(serials, chain[0].SerialNumber.String())
			hints = append(hints, svid.Hint)
			verified = verified && verifies(chain, svid.Bundle)
		}
		report.Event("update", map[string]any{
			"ids": ids, "serials": serials, "hints": hints, "verified": verified,
			"federated": names(response.FederatedBundles),
		})
	}
}

// verifies asks Go whether a chain leads to one of the roots.
func verifies(chain []*x509.Certificate, bundle []byte) bool {
	roots, above := x509.NewCertPool(), x509.NewCertPool()
	certificates, err := x509.ParseCertificates(bundle)
	if err != nil {
		return false
	}
	for _, root := range certificates {
		roots.AddCert(root)
	}
	for _, one := range chain[1:] {
		above.AddCert(one)
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: above, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err == nil
}

func jwt(ctx context.Context, client broker.APIClient, request *broker.FetchJWTSVIDRequest) error {
	response, err := client.FetchJWTSVID(ctx, request)
	if err != nil {
		return err
	}
	for _, svid := range response.Svids {
		report.Event("jwt", map[string]any{"id": svid.SpiffeId, "token": svid.Svid, "hint": svid.Hint})
	}
	return nil
}

func bundles(ctx context.Context, client broker.APIClient, reference *broker.WorkloadReference) error {
	x509s, err := client.SubscribeToX509Bundles(ctx, &broker.SubscribeToX509BundlesRequest{Reference: reference})
	if err != nil {
		return err
	}
	certificates, err := x509s.Recv()
	if err != nil {
		return err
	}
	jwts, err := client.SubscribeToJWTBundles(ctx, &broker.SubscribeToJWTBundlesRequest{Reference: reference})
	if err != nil {
		return err
	}
	keys, err := jwts.Recv()
	if err != nil {
		return err
	}
	report.Event("bundles", map[string]any{"x509": names(certificates.Bundles), "jwt": names(keys.Bundles)})
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
