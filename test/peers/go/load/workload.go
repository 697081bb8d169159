package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"mutual.test/peers/report"
)

// dialUnix gives a lazy channel to a Unix socket.
func dialUnix(path string) (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// asWorkload adds the header without which the Workload API refuses (SPIFFE Workload Endpoint 4).
func asWorkload(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "workload.spiffe.io", "true")
}

// workloads opens one connection a client, or none when each call makes its own.
func workloads(o options) (func(client int) (workload.SpiffeWorkloadAPIClient, func(), error), error) {
	if o.fresh {
		return func(int) (workload.SpiffeWorkloadAPIClient, func(), error) {
			conn, err := dialUnix(o.socket)
			if err != nil {
				return nil, nil, err
			}
			return workload.NewSpiffeWorkloadAPIClient(conn), func() { conn.Close() }, nil
		}, nil
	}
	clients := make([]workload.SpiffeWorkloadAPIClient, o.clients)
	for n := range clients {
		conn, err := dialUnix(o.socket)
		if err != nil {
			return nil, err
		}
		clients[n] = workload.NewSpiffeWorkloadAPIClient(conn)
	}
	return func(client int) (workload.SpiffeWorkloadAPIClient, func(), error) {
		return clients[client], func() {}, nil
	}, nil
}

func fetchX509(ctx context.Context, o options) error {
	open, err := workloads(o)
	if err != nil {
		return err
	}
	return run(ctx, o, 1, func(ctx context.Context, client, _ int) error {
		api, done, err := open(client)
		if err != nil {
			return err
		}
		defer done()
		ctx, cancel := context.WithTimeout(asWorkload(ctx), o.deadline)
		defer cancel()
		stream, err := api.FetchX509SVID(ctx, &workload.X509SVIDRequest{})
		if err != nil {
			return err
		}
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		if len(answer.Svids) == 0 {
			return fmt.Errorf("no SVID in the answer")
		}
		return nil
	})
}

func fetchJWT(ctx context.Context, o options) error {
	open, err := workloads(o)
	if err != nil {
		return err
	}
	epoch := time.Now().UnixNano()
	return run(ctx, o, 1, func(ctx context.Context, client, n int) error {
		api, done, err := open(client)
		if err != nil {
			return err
		}
		defer done()
		ctx, cancel := context.WithTimeout(asWorkload(ctx), o.deadline)
		defer cancel()
		audience := o.audience
		if o.unique {
			audience = fmt.Sprintf("%s-%d-%d-%d", o.audience, epoch, client, n)
		}
		answer, err := api.FetchJWTSVID(ctx, &workload.JWTSVIDRequest{Audience: []string{audience}})
		if err != nil {
			return err
		}
		if len(answer.Svids) == 0 {
			return fmt.Errorf("no SVID in the answer")
		}
		return nil
	})
}

func validateJWT(ctx context.Context, o options) error {
	open, err := workloads(o)
	if err != nil {
		return err
	}
	api, done, err := open(0)
	if err != nil {
		return err
	}
	defer done()
	fetched, err := api.FetchJWTSVID(asWorkload(ctx), &workload.JWTSVIDRequest{Audience: []string{o.audience}})
	if err != nil {
		return err
	}
	request := &workload.ValidateJWTSVIDRequest{Audience: o.audience, Svid: fetched.Svids[0].Svid}
	return run(ctx, o, 1, func(ctx context.Context, client, _ int) error {
		api, done, err := open(client)
		if err != nil {
			return err
		}
		defer done()
		ctx, cancel := context.WithTimeout(asWorkload(ctx), o.deadline)
		defer cancel()
		_, err = api.ValidateJWTSVID(ctx, request)
		return err
	})
}

// first waits, from before the agent runs, until a workload has its first X509-SVID, and reports the moment (Unix ms).
func first(ctx context.Context, o options) error {
	report.Event("waiting", nil)
	end := time.Now().Add(o.deadline)
	for last := error(nil); ; {
		if time.Now().After(end) {
			return fmt.Errorf("no SVID within %s: %w", o.deadline, last)
		}
		if probe, err := net.Dial("unix", o.socket); err != nil {
			last = err
			time.Sleep(time.Millisecond)
			continue
		} else {
			probe.Close()
		}
		if last = firstOnce(ctx, o); last == nil {
			report.Event("first", map[string]any{"at": float64(time.Now().UnixNano()) / 1e6})
			return nil
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func firstOnce(ctx context.Context, o options) error {
	conn, err := dialUnix(o.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(asWorkload(ctx), o.deadline)
	defer cancel()
	stream, err := workload.NewSpiffeWorkloadAPIClient(conn).FetchX509SVID(ctx, &workload.X509SVIDRequest{})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}
