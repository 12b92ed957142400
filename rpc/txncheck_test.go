package rpc

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"

	pb "quire/api/etcdserverpb"
)

// writes is one path through a transaction: what it puts and deletes.
type writes struct {
	puts [][]byte
	dels []span
}

// paths lists every choice of branches of one list of operations.
func paths(ops []*pb.RequestOp) []writes {
	all := []writes{{}}
	for _, op := range ops {
		var more []writes
		switch u := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			more = []writes{{puts: [][]byte{u.RequestPut.Key}}}
		case *pb.RequestOp_RequestDeleteRange:
			s := span{u.RequestDeleteRange.Key, u.RequestDeleteRange.RangeEnd}
			if len(s.hi) == 0 {
				s.hi = append(slices.Clone(s.lo), 0)
			}
			more = []writes{{dels: []span{s}}}
		case *pb.RequestOp_RequestTxn:
			more = append(paths(u.RequestTxn.Success), paths(u.RequestTxn.Failure)...)
		default:
			continue
		}
		var next []writes
		for _, a := range all {
			for _, b := range more {
				next = append(next, writes{slices.Concat(a.puts, b.puts), slices.Concat(a.dels, b.dels)})
			}
		}
		all = next
	}
	return all
}

// collides tells whether some path writes a key twice.
func collides(ops []*pb.RequestOp) bool {
	for _, p := range paths(ops) {
		for i, k := range p.puts {
			for _, other := range p.puts[:i] {
				if bytes.Equal(k, other) {
					return true
				}
			}
			for _, d := range p.dels {
				if bytes.Compare(k, d.lo) >= 0 && bytes.Compare(k, d.hi) < 0 {
					return true
				}
			}
		}
	}
	return false
}

// randomOps makes small transactions over a few keys, with at most one nested
// one in each list. Of two siblings etcd, and so this server, compares only the
// puts of the later one with the deletes of the earlier one; and of a deeper
// nesting it adds up what both branches write. There the rule path by path is
// not its rule.
func randomOps(r *rand.Rand, depth int) (ops []*pb.RequestOp) {
	key := func() []byte { return []byte{'a' + byte(r.IntN(6))} }
	for range r.IntN(4) {
		op := &pb.RequestOp{}
		switch n := r.IntN(10); {
		case n < 4:
			op.Request = &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key()}}
		case n < 7:
			d := &pb.DeleteRangeRequest{Key: key()}
			if r.IntN(2) == 0 {
				d.RangeEnd = key()
			}
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: d}
		case n < 8:
			op.Request = &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key()}}
		case depth > 0:
			depth = 0
			t := &pb.TxnRequest{Success: randomOps(r, 0)}
			if r.IntN(2) == 0 {
				t.Failure = randomOps(r, 0)
			}
			op.Request = &pb.RequestOp_RequestTxn{RequestTxn: t}
		default:
			continue
		}
		ops = append(ops, op)
	}
	return ops
}

func TestOverlapsAgreeWithEveryPath(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	refused := 0
	for range 20_000 {
		ops := randomOps(r, 1)
		got := checkOverlaps(&pb.TxnRequest{Success: ops}) != nil
		if want := collides(ops); got != want {
			t.Fatalf("seed %d: refused %v, want %v: %v", seed, got, want, &pb.TxnRequest{Success: ops})
		}
		if got {
			refused++
		}
	}
	if refused < 1000 {
		t.Errorf("only %d refusals: the random transactions are too tame", refused)
	}
}

// nested returns a transaction of the given depth in wire form. It is built from
// the inside out, in front of what is there.
func nested(depth int) []byte {
	b := make([]byte, 32*depth)
	at := len(b)
	for range depth {
		for _, tag := range []byte{0x22, 0x12} { // request_txn in an operation, success in a transaction
			n := protowire.AppendVarint([]byte{tag}, uint64(len(b)-at))
			at -= len(n)
			copy(b[at:], n)
		}
	}
	return b[at:]
}

func TestDeepNesting(t *testing.T) {
	s := newTestServer(t, newFake())
	for _, tc := range []struct {
		depth int
		code  codes.Code
		text  string
	}{
		{128, codes.OK, ""},
		{129, codes.InvalidArgument, "etcdserver: too many operations in txn request"},
		{4900, codes.InvalidArgument, "etcdserver: too many operations in txn request"},
		{9000, codes.Internal, "grpc: error unmarshalling request: "},
		{100_000, codes.Internal, "grpc: error unmarshalling request: "},
	} {
		_, err := s.Invoke(context.Background(), "/etcdserverpb.KV/Txn", nested(tc.depth))
		var st *Status
		switch {
		case tc.code == codes.OK:
			if err != nil {
				t.Errorf("depth %d: %v", tc.depth, err)
			}
		case !errors.As(err, &st) || st.Code != tc.code || !strings.HasPrefix(st.Text, tc.text):
			t.Errorf("depth %d: %v, want %v %q", tc.depth, err, tc.code, tc.text)
		}
	}
}

// FuzzUnary gives every unary method arbitrary bytes: it must end the call, and
// with valid protobuf or a status.
func FuzzUnary(f *testing.F) {
	backend := newFake()
	cfg := backend.config()
	s, err := New(cfg)
	if err != nil {
		f.Fatal(err)
	}
	for i := range s.methods {
		f.Add(uint8(i), []byte{})
		f.Add(uint8(i), []byte{0x0a, 1, 'k', 0x12, 1, 'v', 0x18, 1})
	}
	f.Add(uint8(4), nested(3))
	txn, _ := (&pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("k"), TargetUnion: &pb.Compare_Version{Version: 1}}},
		Success: randomOps(rand.New(rand.NewPCG(1, 2)), 2),
	}).MarshalVT()
	f.Add(uint8(4), txn)
	f.Fuzz(func(t *testing.T, method uint8, req []byte) {
		m := s.methods[int(method)%len(s.methods)]
		if m.streaming() {
			return
		}
		out, err := s.Invoke(context.Background(), m.FullName(), req)
		if err != nil {
			var st *Status
			if !errors.As(err, &st) {
				t.Fatalf("%s: %v is no status", m.FullName(), err)
			}
			return
		}
		for len(out) > 0 {
			_, _, n := protowire.ConsumeField(out)
			if n < 0 {
				t.Fatalf("%s: response %x is not protobuf", m.FullName(), out)
			}
			out = out[n:]
		}
	})
}

// FuzzWatchRequest gives a watch session arbitrary bytes.
func FuzzWatchRequest(f *testing.F) {
	s, err := New(newFake().config())
	if err != nil {
		f.Fatal(err)
	}
	create, _ := (&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("k"), Filters: []pb.WatchCreateRequest_FilterType{1}}}}).MarshalVT()
	f.Add(create)
	f.Add([]byte{0x0a, 0})
	f.Add([]byte{0x12, 0})
	f.Add([]byte{0x1a, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		m := s.byName["/etcdserverpb.Watch/Watch"]
		session := m.Open(newStream(context.Background(), s, m))
		defer session.Close()
		var st *Status
		if err := session.Recv(msg); err != nil && !errors.As(err, &st) {
			t.Fatalf("%v is no status", err)
		}
	})
}
