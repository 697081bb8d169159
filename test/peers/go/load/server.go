package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	bundlev1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/bundle/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"mutual.test/peers/report"
)

// admins opens one connection to the admin socket for each client.
func admins(o options) ([]*grpc.ClientConn, error) {
	conns := make([]*grpc.ClientConn, o.clients)
	for n := range conns {
		conn, err := dialUnix(o.admin)
		if err != nil {
			return nil, err
		}
		conns[n] = conn
	}
	return conns, nil
}

func wireID(text string) (*types.SPIFFEID, error) {
	id, err := spiffeid.FromString(text)
	if err != nil {
		return nil, err
	}
	return &types.SPIFFEID{TrustDomain: id.TrustDomain().Name(), Path: id.Path()}, nil
}

// newCSR makes a key and a request for the id (none when empty).
func newCSR(id string) (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.CertificateRequest{}
	if id != "" {
		uri, err := url.Parse(id)
		if err != nil {
			return nil, nil, err
		}
		template.URIs = []*url.URL{uri}
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	return key, csr, err
}

func mintX509(ctx context.Context, o options) error {
	conns, err := admins(o)
	if err != nil {
		return err
	}
	_, csr, err := newCSR(o.id)
	if err != nil {
		return err
	}
	return run(ctx, o, 1, func(ctx context.Context, client, _ int) error {
		_, err := svidv1.NewSVIDClient(conns[client]).MintX509SVID(ctx, &svidv1.MintX509SVIDRequest{Csr: csr, Ttl: 600})
		return err
	})
}

func mintJWT(ctx context.Context, o options) error {
	conns, err := admins(o)
	if err != nil {
		return err
	}
	id, err := wireID(o.id)
	if err != nil {
		return err
	}
	request := &svidv1.MintJWTSVIDRequest{Id: id, Audience: []string{o.audience}, Ttl: 300}
	return run(ctx, o, 1, func(ctx context.Context, client, _ int) error {
		_, err := svidv1.NewSVIDClient(conns[client]).MintJWTSVID(ctx, request)
		return err
	})
}

// answer waits, from before the server runs, for its first answer to GetBundle and reports the moment (Unix ms).
func answer(ctx context.Context, o options) error {
	report.Event("waiting", nil)
	end := time.Now().Add(o.deadline)
	for last := error(nil); ; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return fmt.Errorf("no answer within %s: %w", o.deadline, last)
		}
		probe, err := net.Dial("unix", o.admin)
		if err != nil {
			last = err
			continue
		}
		probe.Close()
		conn, err := dialUnix(o.admin)
		if err != nil {
			return err
		}
		bundle, err := bundlev1.NewBundleClient(conn).GetBundle(ctx, &bundlev1.GetBundleRequest{})
		conn.Close()
		if last = err; last == nil && len(bundle.X509Authorities) > 0 {
			report.Event("first", map[string]any{"at": float64(time.Now().UnixNano()) / 1e6})
			return nil
		}
	}
}

// createEntries measures BatchCreateEntry: count entries, batch a call, from each client its share.
func createEntries(ctx context.Context, o options) error {
	conn, err := dialUnix(o.admin)
	if err != nil {
		return err
	}
	defer conn.Close()
	parent, err := wireID(o.parent)
	if err != nil {
		return err
	}
	epoch := time.Now().UnixNano()
	var times []time.Duration
	start := time.Now()
	for made := 0; made < o.count; made += o.batch {
		request := &entryv1.BatchCreateEntryRequest{OutputMask: &types.EntryMask{}}
		for n := made; n < min(made+o.batch, o.count); n++ {
			value := o.selector
			if value == "" {
				value = fmt.Sprintf("bench:%s-%d-%d", o.prefix, epoch, n)
			} else if strings.Contains(value, "%d") {
				value = fmt.Sprintf(value, o.first+n)
			}
			kind, text, _ := strings.Cut(value, ":")
			request.Entries = append(request.Entries, &types.Entry{
				SpiffeId:  &types.SPIFFEID{TrustDomain: o.trustDomain, Path: fmt.Sprintf("/%s/%d/%d", o.prefix, epoch, n)},
				ParentId:  parent,
				Selectors: []*types.Selector{{Type: kind, Value: text}},
			})
		}
		before := time.Now()
		response, err := entryv1.NewEntryClient(conn).BatchCreateEntry(ctx, request)
		if err != nil {
			return err
		}
		for _, result := range response.Results {
			if result.Status.Code != int32(codes.OK) {
				return fmt.Errorf("entry not created: %s", result.Status.Message)
			}
		}
		times = append(times, time.Since(before))
	}
	elapsed := time.Since(start).Seconds()
	result := latencies(times)
	result["rate"] = float64(o.count) / elapsed
	report.Event("result", result)
	return nil
}

// listEntries reads all entries page by page for the measured time; the rate is entries a second.
func listEntries(ctx context.Context, o options) error {
	conn, err := dialUnix(o.admin)
	if err != nil {
		return err
	}
	defer conn.Close()
	token, seen := "", 0
	end := time.Now().Add(o.seconds)
	var times []time.Duration
	start := time.Now()
	for time.Now().Before(end) {
		before := time.Now()
		page, err := entryv1.NewEntryClient(conn).ListEntries(ctx, &entryv1.ListEntriesRequest{PageSize: int32(o.page), PageToken: token},
			grpc.MaxCallRecvMsgSize(64<<20))
		if err != nil {
			return err
		}
		times = append(times, time.Since(before))
		seen += len(page.Entries)
		token = page.NextPageToken
	}
	elapsed := time.Since(start).Seconds()
	if seen == 0 {
		return errors.New("no entries to list")
	}
	result := latencies(times)
	result["rate"] = float64(seen) / elapsed
	report.Event("result", result)
	return nil
}

// prefixed lists the ids of all entries whose path begins with the prefix.
func prefixed(ctx context.Context, api entryv1.EntryClient, prefix string) ([]string, error) {
	var ids []string
	for token := ""; ; {
		request := &entryv1.ListEntriesRequest{PageSize: 1000, PageToken: token, OutputMask: &types.EntryMask{SpiffeId: true}}
		page, err := api.ListEntries(ctx, request, grpc.MaxCallRecvMsgSize(64<<20))
		if err != nil {
			return nil, err
		}
		for _, entry := range page.Entries {
			if strings.HasPrefix(entry.SpiffeId.Path, "/"+prefix+"/") {
				ids = append(ids, entry.Id)
			}
		}
		if token = page.NextPageToken; token == "" {
			return ids, nil
		}
	}
}

func countEntries(ctx context.Context, o options) error {
	conn, err := dialUnix(o.admin)
	if err != nil {
		return err
	}
	defer conn.Close()
	ids, err := prefixed(ctx, entryv1.NewEntryClient(conn), o.prefix)
	if err != nil {
		return err
	}
	report.Event("result", map[string]any{"count": len(ids)})
	return nil
}

// deleteEntries removes every entry whose path begins with the prefix.
func deleteEntries(ctx context.Context, o options) error {
	conn, err := dialUnix(o.admin)
	if err != nil {
		return err
	}
	defer conn.Close()
	api := entryv1.NewEntryClient(conn)
	ids, err := prefixed(ctx, api, o.prefix)
	if err != nil {
		return err
	}
	for at := 0; at < len(ids); at += 500 {
		if _, err := api.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: ids[at:min(at+500, len(ids))]}); err != nil {
			return err
		}
	}
	report.Event("result", map[string]any{"count": len(ids)})
	return nil
}
