package workload

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"quire/tools/bench/client"
	"quire/tools/bench/fakeetcd"
	"quire/tools/bench/loop"
)

// start serves a fake and connects to it.
func start(t *testing.T, opts client.Options) (*fakeetcd.Server, *client.Pool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fake := fakeetcd.New()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- fake.Serve(ctx, l) }()
	opts.Endpoints = []string{l.Addr().String()}
	pool, err := client.Open(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = pool.Close()
		stop()
		<-done
	})
	return fake, pool
}

// small is a shape in which every workload ends quickly.
var small = Spec{Conns: 2, Streams: 3, Keys: 120, Page: 50, Watchers: 11, WatchStreams: 3, LoadBatch: 7}

func TestEveryWorkload(t *testing.T) {
	for _, light := range []bool{false, true} {
		for _, name := range Names() {
			t.Run(fmt.Sprintf("%s/light=%t", name, light), func(t *testing.T) { runWorkload(t, name, light) })
		}
	}
}

func runWorkload(t *testing.T, name string, light bool) {
	spec, err := Parse(name, small)
	if err != nil {
		t.Fatal(err)
	}
	_, pool := start(t, client.Options{Conns: spec.Conns, Light: light})
	load, err := Open(t.Context(), spec, pool)
	if err != nil {
		t.Fatal(err)
	}
	defer load.Close()
	run, err := loop.New(loop.Plan{Steps: load.Steps, Window: 20 * time.Second, MaxOps: 300, MaxErrors: 1})
	if err != nil {
		t.Fatal(err)
	}
	out, err := run.Do(t.Context())
	if err != nil || out.Errors > 0 || out.Ops != 300 {
		t.Fatalf("%d operations, %d errors (%s), %v", out.Ops, out.Errors, out.Sample, err)
	}
	switch unit := load.Unit; {
	case unit == "event" && out.Units != 300*11:
		t.Errorf("%d events of 300 puts to 11 watchers", out.Units)
	case unit == "key" && (out.Units < 300*20 || out.Units > 300*50):
		t.Errorf("%d keys on 300 pages of 50, 50 and 20", out.Units)
	case unit == "op" && out.Units != 300:
		t.Errorf("%d units of 300 operations", out.Units)
	}
}

// TestUpdateNoticesAStranger: a step whose answer is wrong must fail.
func TestUpdateNoticesAStranger(t *testing.T) {
	spec, err := Parse("txn-update@1x1:keys=1", Spec{})
	if err != nil {
		t.Fatal(err)
	}
	fake, pool := start(t, client.Options{Conns: 1})
	load, err := Open(t.Context(), spec, pool)
	if err != nil {
		t.Fatal(err)
	}
	defer load.Close()
	if _, err := fake.Put(t.Context(), &pb.PutRequest{Key: spaceOf(spec).append(nil, 0), Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if _, err := load.Steps[0](t.Context()); err == nil || !strings.Contains(err.Error(), "expected mod revision") {
		t.Errorf("the update of a key that somebody else has written gave %v", err)
	}
	if _, err := load.Steps[0](t.Context()); err != nil {
		t.Errorf("the next update gave %v", err)
	}
}

func TestListNoticesAMissingKey(t *testing.T) {
	spec, err := Parse("list@1x1:keys=20:page=10", Spec{})
	if err != nil {
		t.Fatal(err)
	}
	fake, pool := start(t, client.Options{Conns: 1})
	load, err := Open(t.Context(), spec, pool)
	if err != nil {
		t.Fatal(err)
	}
	defer load.Close()
	ctx := t.Context()
	if _, err := fake.Put(ctx, &pb.PutRequest{Key: spaceOf(spec).append(nil, 3), Lease: 9}); err != nil {
		t.Fatal(err)
	}
	if _, err := fake.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 9}); err != nil { // deletes the key
		t.Fatal(err)
	}
	if _, err := load.Steps[0](ctx); err == nil {
		t.Error("a page of 9 in place of 10 keys was accepted")
	}
}
