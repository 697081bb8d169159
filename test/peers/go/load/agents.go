package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	agentv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/agent/v1"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	svidv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/svid/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"mutual.test/peers/report"
)

// dialServer speaks TLS to the server's port. The server is not verified: these clients measure, they trust nothing.
func dialServer(o options, identity *tls.Certificate) (*grpc.ClientConn, error) {
	config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12} //nolint:gosec // see above
	if identity != nil {
		config.Certificates = []tls.Certificate{*identity}
	}
	return grpc.NewClient(o.server, grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

// attestOnce makes a join token for the alias and attests with it over the given connection.
func attestOnce(ctx context.Context, admin, server *grpc.ClientConn, alias *types.SPIFFEID) (*tls.Certificate, *types.SPIFFEID, error) {
	token, err := agentv1.NewAgentClient(admin).CreateJoinToken(ctx, &agentv1.CreateJoinTokenRequest{Ttl: 600, AgentId: alias})
	if err != nil {
		return nil, nil, err
	}
	key, csr, err := newCSR("")
	if err != nil {
		return nil, nil, err
	}
	stream, err := agentv1.NewAgentClient(server).AttestAgent(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer stream.CloseSend()
	err = stream.Send(&agentv1.AttestAgentRequest{Step: &agentv1.AttestAgentRequest_Params_{Params: &agentv1.AttestAgentRequest_Params{
		Data:   &types.AttestationData{Type: "join_token", Payload: []byte(token.Value)},
		Params: &agentv1.AgentX509SVIDParams{Csr: csr},
	}}})
	if err != nil {
		return nil, nil, err
	}
	answer, err := stream.Recv()
	if err != nil {
		return nil, nil, err
	}
	result := answer.GetResult()
	if result == nil {
		return nil, nil, errors.New("the server sent a challenge for a join token")
	}
	return &tls.Certificate{Certificate: result.Svid.CertChain, PrivateKey: key}, result.Svid.Id, nil
}

// attest measures join-token attestation one after the other, each with its token and a new connection.
func attest(ctx context.Context, o options) error {
	admin, err := dialUnix(o.admin)
	if err != nil {
		return err
	}
	defer admin.Close()
	var times []time.Duration
	var last *types.SPIFFEID
	start := time.Now()
	for range o.count {
		before := time.Now()
		server, err := dialServer(o, nil)
		if err != nil {
			return err
		}
		_, id, err := attestOnce(ctx, admin, server, nil)
		server.Close()
		if err != nil {
			return err
		}
		last = id
		times = append(times, time.Since(before))
	}
	elapsed := time.Since(start).Seconds()
	result := latencies(times)
	result["rate"] = float64(o.count) / elapsed
	result["id"] = "spiffe://" + last.TrustDomain + last.Path
	report.Event("result", result)
	return nil
}

// newSVIDs measures BatchNewX509SVID: o.agents agents, each asking at once for a batch of certificates again and again.
// The entries hang on a node alias that all the agents share.
func newSVIDs(ctx context.Context, o options) error {
	admin, err := dialUnix(o.admin)
	if err != nil {
		return err
	}
	defer admin.Close()
	alias := &types.SPIFFEID{TrustDomain: o.trustDomain, Path: "/" + o.prefix + "-alias"}
	create := &entryv1.BatchCreateEntryRequest{}
	for n := range o.batch {
		create.Entries = append(create.Entries, &types.Entry{
			SpiffeId:  &types.SPIFFEID{TrustDomain: o.trustDomain, Path: fmt.Sprintf("/%s-svid/%d", o.prefix, n)},
			ParentId:  alias,
			Selectors: []*types.Selector{{Type: "bench", Value: fmt.Sprintf("svid-%d", n)}},
		})
	}
	response, err := entryv1.NewEntryClient(admin).BatchCreateEntry(ctx, create)
	if err != nil {
		return err
	}
	var ids []string
	for _, result := range response.Results {
		if code := codes.Code(result.Status.Code); code != codes.OK && code != codes.AlreadyExists {
			return fmt.Errorf("entry not created: %s", result.Status.Message)
		}
		ids = append(ids, result.Entry.Id)
	}
	anonymous, err := dialServer(o, nil)
	if err != nil {
		return err
	}
	defer anonymous.Close()
	agents := make([]*grpc.ClientConn, o.agents)
	for n := range agents {
		identity, _, err := attestOnce(ctx, admin, anonymous, alias)
		if err != nil {
			return err
		}
		if agents[n], err = dialServer(o, identity); err != nil {
			return err
		}
		defer agents[n].Close()
	}
	for n := range agents {
		if err := awaitEntries(ctx, o, agents[n], len(ids)); err != nil {
			return err
		}
	}
	_, csr, err := newCSR("")
	if err != nil {
		return err
	}
	request := &svidv1.BatchNewX509SVIDRequest{}
	for _, id := range ids {
		request.Params = append(request.Params, &svidv1.NewX509SVIDParams{EntryId: id, Csr: csr})
	}
	o.clients = o.agents
	return run(ctx, o, len(ids), func(ctx context.Context, client, _ int) error {
		response, err := svidv1.NewSVIDClient(agents[client]).BatchNewX509SVID(ctx, request)
		if err != nil {
			return err
		}
		for _, result := range response.Results {
			if result.Status.Code != int32(codes.OK) {
				return fmt.Errorf("no SVID: %s", result.Status.Message)
			}
		}
		return nil
	})
}

// awaitEntries waits until the server sees the agent's entries: a server may rebuild its view only every few seconds.
func awaitEntries(ctx context.Context, o options, agent *grpc.ClientConn, want int) error {
	end := time.Now().Add(o.deadline)
	for {
		response, err := entryv1.NewEntryClient(agent).GetAuthorizedEntries(ctx, &entryv1.GetAuthorizedEntriesRequest{})
		if err != nil {
			return err
		}
		if len(response.Entries) >= want {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d entries after %s", len(response.Entries), want, o.deadline)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
