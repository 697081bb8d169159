package main

import (
	"context"
	"crypto"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/exp/bundle/witbundle"
	"github.com/spiffe/go-spiffe/v2/exp/svid/witsvid"

	"mutual.test/peers/report"
)

// fetchWIT reports every WIT-SVID, each verified with go-spiffe against the bundles of the same socket, and its key against
// the one in the token.
func fetchWIT(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	bundles, err := client.FetchWITBundles(ctx)
	if err != nil {
		return err
	}
	svids, err := client.FetchWITSVIDs(ctx, o.id)
	if err != nil {
		return err
	}
	return printWITs("wit", svids, bundles)
}

func printWITs(event string, svids []*witsvid.SVID, bundles *witbundle.Set) error {
	told := []map[string]any{}
	for _, svid := range svids {
		verified, err := witsvid.ParseAndValidate(svid.Marshal(), bundles)
		if err != nil {
			return fmt.Errorf("%s does not verify: %w", svid.ID, err)
		}
		private, ok := svid.PrivateKey.(crypto.Signer)
		if !ok {
			return fmt.Errorf("%s: a key of type %T does not sign", svid.ID, svid.PrivateKey)
		}
		public, ok := private.Public().(interface{ Equal(crypto.PublicKey) bool })
		if !ok || !public.Equal(verified.PublicKey) {
			return fmt.Errorf("%s: the private key is of another token", svid.ID)
		}
		told = append(told, map[string]any{
			"id": verified.ID.String(), "hint": svid.Hint, "key": verified.KeyID, "token": svid.Marshal(),
		})
	}
	report.Event(event, map[string]any{"svids": told})
	return nil
}

type witWatcher struct{}

// watchWIT reports each update of the stream until stopped, or that go-spiffe has given up on the profile.
func watchWIT(ctx context.Context, o options) error {
	client, err := connect(ctx, o)
	if err != nil {
		return err
	}
	defer client.Close()
	err = client.WatchWITSVIDs(ctx, witWatcher{}, o.id)
	if ctx.Err() == nil {
		report.Event("ended", map[string]any{"error": fmt.Sprint(err)})
	}
	return nil
}

func (witWatcher) OnWITSVIDsUpdate(svids []*witsvid.SVID) {
	told := []map[string]any{}
	for _, svid := range svids {
		told = append(told, map[string]any{"id": svid.ID.String(), "key": svid.KeyID})
	}
	report.Event("update", map[string]any{"svids": told})
}

func (witWatcher) OnWITSVIDsWatchError(err error) {
	report.Event("refused", map[string]any{"error": err.Error()})
}
