package engine

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	pb "quire/api/etcdserverpb"
	"quire/api/mvccpb"
)

// TestRangeStreamSortsWithinChunks: a sort target without an order is permitted.
// The chunks divide the keys in their order, and each is sorted by the target.
func TestRangeStreamSortsWithinChunks(t *testing.T) {
	r := newRig(t, 1)
	const keys = 25
	for i := range keys {
		r.apply(op(t, OpPut, &pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", i), Value: fmt.Appendf(nil, "%02d", i*7%keys)}))
	}
	for _, limit := range []int64{0, 4, 17} {
		c := r.e.RangeStream(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), SortTarget: pb.RangeRequest_VALUE, Limit: limit}, 1<<20)
		var all [][]byte
		last := &pb.RangeResponse{}
		for done := false; !done; {
			b, _, end, err := c.Next(nil)
			if err != nil {
				t.Fatal(err)
			}
			done, last = end, &pb.RangeResponse{}
			if err := last.UnmarshalVT(b); err != nil {
				t.Fatal(err)
			}
			if !slices.IsSortedFunc(last.Kvs, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Value, b.Value) }) {
				t.Errorf("limit %d: a chunk is not sorted by value: %v", limit, last.Kvs)
			}
			for _, kv := range last.Kvs {
				all = append(all, kv.Key)
			}
		}
		want := keys
		if limit > 0 {
			want = int(limit)
		}
		slices.SortFunc(all, bytes.Compare)
		for i, k := range all {
			if string(k) != fmt.Sprintf("k%02d", i) {
				t.Fatalf("limit %d: key %d is %q; all: %q", limit, i, k, all)
			}
		}
		if len(all) != want || last.Count != keys || last.More != (want < keys) {
			t.Errorf("limit %d: %d keys, count %d, more %v", limit, len(all), last.Count, last.More)
		}
	}
}

// TestRangeStreamChunksAreBounded: a chunk ends with the value that fills it, however few keys that makes; an answer
// of several chunks is the same as one of one.
func TestRangeStreamChunksAreBounded(t *testing.T) {
	r := newRig(t, 1)
	const keys, size, chunk = 40, 10_000, 30_000
	for i := range keys {
		r.apply(op(t, OpPut, &pb.PutRequest{Key: fmt.Appendf(nil, "k%02d", i), Value: make([]byte, size)}))
	}
	for _, limit := range []int64{0, 7, 39, 40, 41} {
		c := r.e.RangeStream(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: limit}, chunk)
		n, chunks, last := int64(0), 0, &pb.RangeResponse{}
		for done := false; !done; chunks++ {
			b, _, end, err := c.Next(nil)
			if err != nil {
				t.Fatal(err)
			}
			done, last = end, &pb.RangeResponse{}
			if err := last.UnmarshalVT(b); err != nil {
				t.Fatal(err)
			}
			if len(b) > 2*chunk+size+100 {
				t.Errorf("limit %d: a chunk of %d bytes", limit, len(b))
			}
			for _, kv := range last.Kvs {
				if string(kv.Key) != fmt.Sprintf("k%02d", n) {
					t.Fatalf("limit %d: key %d is %q", limit, n, kv.Key)
				}
				n++
			}
		}
		want := int64(keys)
		if limit > 0 {
			want = min(limit, keys)
		}
		if n != want || last.Count != keys || last.More != (want < keys) {
			t.Errorf("limit %d: %d keys in %d chunks, count %d, more %v", limit, n, chunks, last.Count, last.More)
		}
	}
	// Without a limit of bytes, as a negative limit asks for.
	b, _, done, err := r.e.RangeStream(&pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: -1}, chunk).Next(nil)
	if err != nil || !done || len(b) < keys*size {
		t.Errorf("%d bytes, done %v, %v", len(b), done, err)
	}
}
