package abuse

import (
	"context"
	"fmt"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// fill puts so many values of a size.
func (v *victim) fill(prefix string, n, size int) {
	v.Helper()
	value := string(make([]byte, size))
	for i := range n {
		ctx, cancel := context.WithTimeout(v.Context(), aliveLimit)
		_, err := v.client.Put(ctx, fmt.Sprintf("%s%d", prefix, i%16), value)
		cancel()
		if err != nil {
			v.Fatal(err)
		}
	}
}

// TestWatchersThatNeverRead: watchers of everything that do not read, on connections of their own and by every way, while
// 60 MiB are written (FAULTS: upstream grows by 250 MiB and keeps them).
func TestWatchersThatNeverRead(t *testing.T) {
	v := newVictim(t)
	for range 40 {
		stream, err := pb.NewWatchClient(v.Conn(t)).Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		create := &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}
		if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	for range 40 {
		conn := v.dial()
		body := `{"create_request":{"key":"AA==","range_end":"AA=="}}`
		fmt.Fprintf(conn, "POST /v3/watch HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		if _, err := io.ReadFull(conn, make([]byte, 12)); err != nil {
			t.Fatal(err)
		}
	}
	v.fill("w", 240, 256*kib)
	v.alive()
	// 60 MiB of values are in the store's cache and in its log; the rest is what the readers cost.
	v.within(60*mib + generous)
}

// TestReadersThatNeverRead: large answers that nobody takes.
func TestReadersThatNeverRead(t *testing.T) {
	ask := map[string]func(v *victim){
		"gRPC": func(v *victim) {
			stream, err := pb.NewKVClient(v.Conn(v.T)).RangeStream(v.Context(), &pb.RangeRequest{Key: []byte("r"), RangeEnd: []byte("s")})
			if err != nil {
				v.Fatal(err)
			}
			_ = stream // not read
		},
		"JSON": func(v *victim) {
			body := `{"key":"cg==","range_end":"cw==","limit":"2"}`
			fmt.Fprintf(v.dial(), "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		},
	}
	for name, ask := range ask {
		t.Run(name, func(t *testing.T) {
			v := newVictim(t)
			v.fill("r", 16, mib)
			v.alive()
			v.base = v.resident()
			for range 40 {
				ask(v)
			}
			v.alive()
			v.within(generous + 40*5*mib) // a chunk has at most twice 1.5 MiB and a value
		})
	}
}

// TestManyWatchesOnOneStream: a hundred thousand on one stream.
func TestManyWatchesOnOneStream(t *testing.T) {
	v := newVictim(t)
	stream, err := pb.NewWatchClient(v.Conn(t)).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n = 100_000
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			create := &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "key-%d", i)}
			if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	for range n {
		if resp, err := stream.Recv(); err != nil || !resp.Created {
			t.Fatal(resp, err)
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	v.alive()
	v.within(generous)
}
