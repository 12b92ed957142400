package realclient

import (
	"errors"
	"fmt"
	"io"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// chunks reads a RangeStream to its end.
func chunks(s *server, req *pb.RangeRequest) ([]*pb.RangeResponse, error) {
	stream, err := s.kv.RangeStream(s.ctx, req)
	if err != nil {
		return nil, err
	}
	var all []*pb.RangeResponse
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, resp.GetRangeResponse())
	}
}

// chunkSizes checks that the keys are k000, k001 …, that only the last chunk has a header, and returns the sizes.
func chunkSizes(t *testing.T, all []*pb.RangeResponse) []int {
	t.Helper()
	var sizes []int
	n := 0
	for i, c := range all {
		sizes = append(sizes, len(c.Kvs))
		for _, k := range c.Kvs {
			equal(t, "key", string(k.Key), fmt.Sprintf("k%03d", n))
			n++
		}
		if last := i == len(all)-1; !last {
			equal(t, "header of an inner chunk", c.Header == nil && !c.More && c.Count == 0, true)
		}
	}
	return sizes
}

func TestRangeStreamChunks(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for i := range 100 {
		mustPut(t, s.kv, put(fmt.Sprintf("k%03d", i), "v"))
	}
	k := func(r *pb.RangeRequest) *pb.RangeRequest {
		r.Key, r.RangeEnd = []byte("k"), []byte("l")
		return r
	}
	tests := []struct {
		name      string
		req       *pb.RangeRequest
		wantSizes []int
		wantEnd   string // the last chunk without its keys
	}{
		{"all", k(&pb.RangeRequest{}), []int{10, 20, 40, 30}, "rev 101 count 100"},
		{"limit within the first chunk", k(&pb.RangeRequest{Limit: 3}), []int{3}, "rev 101 count 100 more"},
		{"limit that ends a chunk", k(&pb.RangeRequest{Limit: 30}), []int{10, 20}, "rev 101 count 100 more"},
		{"limit within a later chunk", k(&pb.RangeRequest{Limit: 35}), []int{10, 20, 5}, "rev 101 count 100 more"},
		{"limit of all", k(&pb.RangeRequest{Limit: 100}), []int{10, 20, 40, 30}, "rev 101 count 100"},
		{"limit above all", k(&pb.RangeRequest{Limit: 101}), []int{10, 20, 40, 30}, "rev 101 count 100"},
		{"negative limit", k(&pb.RangeRequest{Limit: -1}), []int{100}, "rev 101 count 100"},
		{"old revision", k(&pb.RangeRequest{Revision: 16}), []int{10, 5}, "rev 101 count 15"},
		{"serializable", k(&pb.RangeRequest{Serializable: true, Limit: 1}), []int{1}, "rev 101 count 100 more"},
		{"keys only", k(&pb.RangeRequest{KeysOnly: true, Limit: 12}), []int{10, 2}, "rev 101 count 100 more"},
		{"count only", k(&pb.RangeRequest{CountOnly: true}), []int{0}, "rev 101 count 100"},
		{"count only with a limit", k(&pb.RangeRequest{CountOnly: true, Limit: 4}), []int{0}, "rev 101 count 100"},
		{"sorted by key ascending", k(&pb.RangeRequest{SortOrder: pb.RangeRequest_ASCEND, Limit: 1}), []int{1}, "rev 101 count 100 more"},
		{"one key", &pb.RangeRequest{Key: []byte("k000")}, []int{1}, "rev 101 count 1"},
		{"nothing", &pb.RangeRequest{Key: []byte("x")}, []int{0}, "rev 101 count 0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, err := chunks(s, tt.req)
			check(t, err)
			equal(t, "chunks", fmt.Sprint(chunkSizes(t, all)), fmt.Sprint(tt.wantSizes))
			last := all[len(all)-1]
			equal(t, "last", rangeText(&pb.RangeResponse{Header: last.Header, More: last.More, Count: last.Count}), tt.wantEnd)
		})
	}
}

func TestRangeStreamRefusals(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	rangeHistory(t, s.kv)
	mustCompact(t, s.kv, 5)
	k := []byte("a")
	const order = "Unimplemented: RangeStream does not support custom sort orders"
	const filter = "Unimplemented: RangeStream does not support revision filters"
	tests := []struct {
		name string
		req  *pb.RangeRequest
		want string
	}{
		{"no key", &pb.RangeRequest{}, "InvalidArgument: etcdserver: key is not provided"},
		{"bad order", &pb.RangeRequest{Key: k, SortOrder: 9}, "InvalidArgument: etcdserver: invalid sort option"},
		{"descending", &pb.RangeRequest{Key: k, SortOrder: pb.RangeRequest_DESCEND}, order},
		{"by value", &pb.RangeRequest{Key: k, SortOrder: pb.RangeRequest_ASCEND, SortTarget: pb.RangeRequest_VALUE}, order},
		{"by value without an order", &pb.RangeRequest{Key: k, SortTarget: pb.RangeRequest_VALUE}, ""},
		{"min mod", &pb.RangeRequest{Key: k, MinModRevision: 1}, filter},
		{"max create", &pb.RangeRequest{Key: k, MaxCreateRevision: 1}, filter},
		{"compacted", &pb.RangeRequest{Key: k, Revision: 4}, "OutOfRange: etcdserver: mvcc: required revision has been compacted"},
		{"future", &pb.RangeRequest{Key: k, Revision: 10}, "OutOfRange: etcdserver: mvcc: required revision is a future revision"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := chunks(s, tt.req)
			equal(t, "error", errText(err), tt.want)
		})
	}
}

func TestRangeStreamStaysAtItsRevision(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for i := range 200 {
		mustPut(t, s.kv, &pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", i), Value: make([]byte, 64<<10)})
	}
	stream, err := s.kv.RangeStream(s.ctx, get("k", "l"))
	check(t, err)
	first, err := stream.Recv()
	check(t, err)
	mustDel(t, s.kv, del("k", "l"))
	n, last := len(first.GetRangeResponse().Kvs), first.GetRangeResponse()
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		check(t, err)
		last = resp.GetRangeResponse()
		n += len(last.Kvs)
	}
	equal(t, "keys", n, 200)
	equal(t, "revision of the stream", last.GetHeader().GetRevision(), int64(201))
}

func TestRangeStreamThroughClientv3(t *testing.T) {
	t.Parallel()
	s, c := startClient(t)
	for i := range 35 {
		mustPut(t, s.kv, put(fmt.Sprintf("k%03d", i), "v"))
	}
	stream, err := c.GetStream(s.ctx, "k", clientv3.WithPrefix())
	check(t, err)
	resp, err := clientv3.GetStreamToGetResponse(stream)
	check(t, err)
	equal(t, "keys", len(resp.Kvs), 35)
	equal(t, "count", resp.Count, int64(35))
	equal(t, "revision", resp.Header.Revision, int64(36))
}
