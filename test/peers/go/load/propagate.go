package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	entryv1 "github.com/spiffe/spire-api-sdk/proto/spire/api/server/entry/v1"
	"github.com/spiffe/spire-api-sdk/proto/spire/api/types"
	"google.golang.org/grpc/codes"

	"mutual.test/peers/report"
)

// propagate measures how long an operator's change takes to reach a workload which waits on an open stream: a new entry
// until its SVID is in the stream, and its deletion until the stream no longer has it. The caller must already hold
// another identity, or the stream would not open.
func propagate(ctx context.Context, o options) error {
	agent, err := dialUnix(o.socket)
	if err != nil {
		return err
	}
	defer agent.Close()
	admin, err := dialUnix(o.admin)
	if err != nil {
		return err
	}
	defer admin.Close()
	entries := entryv1.NewEntryClient(admin)
	parent, err := wireID(o.parent)
	if err != nil {
		return err
	}
	stream, err := workload.NewSpiffeWorkloadAPIClient(agent).FetchX509SVID(asWorkload(ctx), &workload.X509SVIDRequest{})
	if err != nil {
		return err
	}
	updates := make(chan map[string]bool, 64)
	broken := make(chan error, 1)
	go func() {
		for {
			update, err := stream.Recv()
			if err != nil {
				broken <- err
				return
			}
			ids := map[string]bool{}
			for _, svid := range update.Svids {
				ids[svid.SpiffeId] = true
			}
			updates <- ids
		}
	}()
	until := func(id string, there bool) error {
		timer := time.NewTimer(o.deadline)
		defer timer.Stop()
		for {
			select {
			case ids := <-updates:
				if ids[id] == there {
					return nil
				}
			case err := <-broken:
				return err
			case <-timer.C:
				return fmt.Errorf("%s: not %v in the stream within %s", id, there, o.deadline)
			}
		}
	}
	select {
	case <-updates:
	case err := <-broken:
		return err
	}
	kind, value, _ := strings.Cut(o.selector, ":")
	var created, deleted []time.Duration
	for round := range o.rounds {
		path := fmt.Sprintf("/%s/%d/%d", o.prefix, time.Now().UnixNano(), round)
		id := "spiffe://" + o.trustDomain + path
		before := time.Now()
		response, err := entries.BatchCreateEntry(ctx, &entryv1.BatchCreateEntryRequest{Entries: []*types.Entry{{
			SpiffeId: &types.SPIFFEID{TrustDomain: o.trustDomain, Path: path}, ParentId: parent,
			Selectors: []*types.Selector{{Type: kind, Value: value}},
		}}})
		if err != nil {
			return err
		}
		if status := response.Results[0].Status; status.Code != int32(codes.OK) {
			return fmt.Errorf("entry not created: %s", status.Message)
		}
		if err := until(id, true); err != nil {
			return err
		}
		created = append(created, time.Since(before))
		before = time.Now()
		if _, err := entries.BatchDeleteEntry(ctx, &entryv1.BatchDeleteEntryRequest{Ids: []string{response.Results[0].Entry.Id}}); err != nil {
			return err
		}
		if err := until(id, false); err != nil {
			return err
		}
		deleted = append(deleted, time.Since(before))
	}
	report.Event("result", map[string]any{"created": latencies(created), "deleted": latencies(deleted)})
	return nil
}
