// load drives any SPIFFE Workload API and any SPIRE server API over their public contracts, with grpc-go, so that it
// favours nobody, and reports what it measured as one line of JSON.
//
//	load VERB flags     see the table in main; every verb takes only what it needs
//
// Latencies are kept exactly and sorted at the end. A call that fails ends the run: a fast refusal is no result.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sort"
	"sync"
	"syscall"
	"time"

	"mutual.test/peers/report"
)

// options are all flags; a verb reads those that concern it.
type options struct {
	socket, admin, server, trustDomain, parent, selector, audience, id, prefix string
	clients, batch, count, rounds, agents, page, first                         int
	seconds, warm, deadline                                                    time.Duration
	fresh, unique                                                              bool
}

func main() {
	if len(os.Args) < 2 {
		report.Fail(errors.New("expected a verb"))
	}
	verbs := map[string]func(context.Context, options) error{
		"fetch-x509": fetchX509, "fetch-jwt": fetchJWT, "validate-jwt": validateJWT, "first": first,
		"mint-x509": mintX509, "mint-jwt": mintJWT, "answer": answer,
		"create-entries": createEntries, "list-entries": listEntries, "delete-entries": deleteEntries, "count-entries": countEntries,
		"propagate": propagate, "attest": attest, "new-svids": newSVIDs,
	}
	verb, known := verbs[os.Args[1]]
	if !known {
		report.Fail(fmt.Errorf("no such verb %q", os.Args[1]))
	}
	var o options
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	flags.StringVar(&o.socket, "socket", "", "path of the Workload API socket")
	flags.StringVar(&o.admin, "admin", "", "path of the server's admin socket")
	flags.StringVar(&o.server, "server", "", "host:port of the server")
	flags.StringVar(&o.trustDomain, "trust-domain", "example.org", "trust domain name")
	flags.StringVar(&o.parent, "parent", "", "SPIFFE ID of the parent of new entries")
	flags.StringVar(&o.selector, "selector", "", "selector of new entries, type:value; %d in it is a number of each")
	flags.StringVar(&o.audience, "audience", "bench", "audience of tokens")
	flags.StringVar(&o.id, "id", "", "SPIFFE ID to mint or to wait for")
	flags.StringVar(&o.prefix, "prefix", "bench", "first path segment of new entries")
	flags.IntVar(&o.clients, "clients", 1, "clients at once, each on its own connection")
	flags.IntVar(&o.batch, "batch", 50, "items in one call")
	flags.IntVar(&o.count, "count", 1000, "items in all")
	flags.IntVar(&o.first, "first", 0, "the first of those numbers")
	flags.IntVar(&o.rounds, "rounds", 10, "rounds of propagate")
	flags.IntVar(&o.agents, "agents", 50, "agents of new-svids")
	flags.IntVar(&o.page, "page", 1000, "page size of list-entries")
	flags.DurationVar(&o.seconds, "for", 3*time.Second, "how long to measure")
	flags.DurationVar(&o.warm, "warm", time.Second, "how long to run before measuring")
	flags.DurationVar(&o.deadline, "deadline", 30*time.Second, "how long to wait for one thing")
	flags.BoolVar(&o.fresh, "fresh", false, "a new connection for each call")
	flags.BoolVar(&o.unique, "unique", false, "a new audience for each call")
	_ = flags.Parse(os.Args[2:])
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := verb(ctx, o); err != nil {
		report.Fail(err)
	}
}

// call does one unit of work; client and n tell the callers and their calls apart.
type call func(ctx context.Context, client, n int) error

// run calls from o.clients goroutines for the warm-up and then the measured time, and reports rate and latencies, and how
// many calls there were in all.
// weight is how many items one call stands for.
func run(ctx context.Context, o options, weight int, one call) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now().Add(o.warm)
	end := start.Add(o.seconds)
	all := make([][]time.Duration, o.clients)
	calls := make([]int, o.clients)
	failures := make(chan error, o.clients)
	var group sync.WaitGroup
	for client := range o.clients {
		group.Go(func() {
			for n := 0; ; n++ {
				before := time.Now()
				if before.After(end) || ctx.Err() != nil {
					return
				}
				if err := one(ctx, client, n); err != nil {
					failures <- fmt.Errorf("client %d, call %d: %w", client, n, err)
					cancel()
					return
				}
				calls[client]++
				if before.After(start) {
					all[client] = append(all[client], time.Since(before))
				}
			}
		})
	}
	group.Wait()
	select {
	case err := <-failures:
		return err
	default:
	}
	var times []time.Duration
	for _, part := range all {
		times = append(times, part...)
	}
	if len(times) == 0 {
		return errors.New("no call ended in the measured time")
	}
	result := latencies(times)
	result["rate"] = float64(len(times)*weight) / time.Since(start).Seconds()
	total := 0
	for _, made := range calls {
		total += made
	}
	result["calls"] = total * weight
	report.Event("result", result)
	return nil
}

// latencies gives count and quantiles in milliseconds.
func latencies(times []time.Duration) map[string]any {
	sort.Slice(times, func(a, b int) bool { return times[a] < times[b] })
	at := func(share float64) float64 {
		return float64(times[min(len(times)-1, int(share*float64(len(times))))]) / float64(time.Millisecond)
	}
	return map[string]any{"count": len(times), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}
}
