// workload asks the Workload API through go-spiffe and reports what a go-spiffe program sees.
//
//	workload x509     -socket unix:///path [-fd N]    every X509-SVID, each verified against its bundle
//	workload jwt      -socket ... -audience a,b [-id spiffe://...]
//	workload bundles  -socket ...
//	workload validate -socket ... -audience a -token T    asks the agent to validate
//	workload watch    -socket ...                          one line an update, until stopped
//	workload wit, watch-wit  -socket ... [-id spiffe://...]  the same of WIT-SVIDs
//	workload verify-jwt  -bundle FILE -audience a -token T  validates offline with go-spiffe's own JOSE library
//	workload verify-x509 -bundle FILE -svid FILE             (PEM chain) validates offline
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/jwtbundle"
	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/jwtsvid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"google.golang.org/grpc"

	"mutual.test/peers/report"
)

type options struct {
	socket, audience, id, token, bundle, svid string
	descriptor                                int
}

func main() {
	if len(os.Args) < 2 {
		report.Fail(errors.New("expected x509, jwt, bundles, validate, watch, verify-jwt, verify-x509, wit or watch-wit"))
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.socket, "socket", "", "Workload API address, unix:///path")
	flags.StringVar(&o.audience, "audience", "", "audiences, separated by commas")
	flags.StringVar(&o.id, "id", "", "only this SPIFFE ID")
	flags.StringVar(&o.token, "token", "", "a JWT-SVID")
	flags.StringVar(&o.bundle, "bundle", "", "file with a SPIFFE bundle (JWKS)")
	flags.StringVar(&o.svid, "svid", "", "file with a certificate chain (PEM), leaf first")
	flags.IntVar(&o.descriptor, "fd", 0, "speak on this open descriptor instead of connecting")
	timeout := flags.Duration("timeout", 10*time.Second, "deadline of the call")
	_ = flags.Parse(os.Args[2:])

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	isWatch := strings.HasPrefix(os.Args[1], "watch")
	if !isWatch {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *timeout)
		defer cancel()
	}
	verbs := map[string]func(context.Context, options) error{
		"x509": fetchX509, "jwt": fetchJWT, "bundles": fetchBundles, "validate": validate, "watch": watch,
		"verify-jwt": verifyJWT, "verify-x509": verifyX509, "wit": fetchWIT, "watch-wit": watchWIT,
	}
	verb, known := verbs[os.Args[1]]
	if !known {
		report.Fail(fmt.Errorf("no such verb %q", os.Args[1]))
	}
	if err := verb(ctx, o); err != nil && !(isWatch && ctx.Err() != nil) {
		report.Fail(err)
	}
}

func connect(ctx context.Context, o options) (*workloadapi.Client, error) {
	choices := []workloadapi.ClientOption{workloadapi.WithAddr(o.socket)}
	if o.descriptor != 0 {
		choices = append(choices, workloadapi.WithDialOptions(grpc.WithContextDialer(
			func(context.Context, string) (net.Conn, error) {
				return net.FileConn(os.NewFile(uintptr(o.descriptor), "inherited"))
			})))
	}
	return workloadapi.New(ctx, choices...)
}

func fetchX509(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	update, err := client.FetchX509Context(ctx)
	if err != nil {
		return err
	}
	return printX509("x509", update)
}

// printX509 verifies every SVID of the update with go-spiffe, then reports them all in one event.
func printX509(event string, update *workloadapi.X509Context) error {
	svids := []map[string]any{}
	for _, svid := range update.SVIDs {
		verified, _, err := x509svid.Verify(svid.Certificates, update.Bundles)
		if err != nil {
			return fmt.Errorf("%s does not verify: %w", svid.ID, err)
		}
		if public, ok := svid.PrivateKey.Public().(*ecdsa.PublicKey); ok && !public.Equal(svid.Certificates[0].PublicKey) {
			return fmt.Errorf("%s: the private key is of another certificate", svid.ID)
		}
		chain := []string{}
		for _, certificate := range svid.Certificates {
			chain = append(chain, base64.StdEncoding.EncodeToString(certificate.Raw))
		}
		leaf := svid.Certificates[0]
		svids = append(svids, map[string]any{
			"id": verified.String(), "serial": leaf.SerialNumber.Text(16), "hint": svid.Hint, "chain": chain,
			"issuer":    fmt.Sprintf("%x", leaf.AuthorityKeyId),
			"notBefore": leaf.NotBefore.Unix(), "notAfter": leaf.NotAfter.Unix(),
		})
	}
	report.Event(event, map[string]any{"svids": svids, "bundles": authorities(update.Bundles)})
	return nil
}

// authorities lists the authority key ids of each trust domain.
func authorities(set *x509bundle.Set) map[string][]string {
	found := map[string][]string{}
	for _, bundle := range set.Bundles() {
		ids := []string{}
		for _, authority := range bundle.X509Authorities() {
			ids = append(ids, fmt.Sprintf("%x", authority.SubjectKeyId))
		}
		sort.Strings(ids)
		found[bundle.TrustDomain().Name()] = ids
	}
	return found
}

func fetchJWT(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	audiences := strings.Split(o.audience, ",")
	params := jwtsvid.Params{Audience: audiences[0], ExtraAudiences: audiences[1:]}
	if o.id != "" {
		if params.Subject, err = spiffeid.FromString(o.id); err != nil {
			return err
		}
	}
	svids, err := client.FetchJWTSVIDs(ctx, params)
	if err != nil {
		return err
	}
	bundles, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	tokens := []map[string]any{}
	for _, svid := range svids {
		verified, err := jwtsvid.ParseAndValidate(svid.Marshal(), bundles, audiences[:1])
		if err != nil {
			return fmt.Errorf("%s does not validate: %w", svid.ID, err)
		}
		tokens = append(tokens, map[string]any{
			"id": verified.ID.String(), "token": svid.Marshal(), "audience": verified.Audience,
			"expiry": verified.Expiry.Unix(), "hint": svid.Hint,
		})
	}
	report.Event("jwt", map[string]any{"svids": tokens})
	return nil
}

func fetchBundles(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	x509Set, err := client.FetchX509Bundles(ctx)
	if err != nil {
		return err
	}
	jwtSet, err := client.FetchJWTBundles(ctx)
	if err != nil {
		return err
	}
	keys := map[string][]string{}
	for _, bundle := range jwtSet.Bundles() {
		ids := []string{}
		for id := range bundle.JWTAuthorities() {
			ids = append(ids, id)
		}
		sort.Strings(ids)
		keys[bundle.TrustDomain().Name()] = ids
	}
	report.Event("bundles", map[string]any{"x509": authorities(x509Set), "jwt": keys})
	return nil
}

func validate(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	svid, err := client.ValidateJWTSVID(ctx, o.token, o.audience)
	if err != nil {
		return err
	}
	report.Event("valid", map[string]any{"id": svid.ID.String(), "claims": svid.Claims})
	return nil
}

type watcher struct{}

func (watcher) OnX509ContextUpdate(update *workloadapi.X509Context) {
	if err := printX509("update", update); err != nil {
		report.Event("invalid", map[string]any{"message": err.Error()})
	}
}

func (watcher) OnX509ContextWatchError(err error) {
	report.Event("lost", map[string]any{"message": err.Error()})
}

func watch(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.WatchX509Context(ctx, watcher{})
}

func verifyJWT(_ context.Context, o options) error {
	bundle, err := readBundle(o.bundle)
	if err != nil {
		return err
	}
	svid, err := jwtsvid.ParseAndValidate(o.token, jwtbundle.NewSet(bundle.JWTBundle()), []string{o.audience})
	if err != nil {
		return err
	}
	report.Event("valid", map[string]any{"id": svid.ID.String(), "claims": svid.Claims})
	return nil
}

func verifyX509(_ context.Context, o options) error {
	bundle, err := readBundle(o.bundle)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(o.svid)
	if err != nil {
		return err
	}
	var chain []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return err
		}
		chain = append(chain, certificate)
	}
	id, _, err := x509svid.Verify(chain, bundle)
	if err != nil {
		return err
	}
	report.Event("valid", map[string]any{"id": id.String()})
	return nil
}

// readBundle takes the trust domain from the file's own name: example.org.json.
func readBundle(path string) (*spiffebundle.Bundle, error) {
	name := path[strings.LastIndex(path, "/")+1:]
	domain, err := spiffeid.TrustDomainFromString(strings.TrimSuffix(name, ".json"))
	if err != nil {
		return nil, err
	}
	return spiffebundle.Load(domain, path)
}
