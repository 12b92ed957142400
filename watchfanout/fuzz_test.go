package watchfanout

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "quire/api/etcdserverpb"
	"quire/api/mvccpb"
)

// fragmentsOf is etcd's rule in its simplest form: a response is sent whole if
// it is below the limit or has one event; otherwise each part takes events
// while it has none or stays below the limit, measured with the fragment flag.
func fragmentsOf(r *pb.WatchResponse, limit int) (parts []*pb.WatchResponse) {
	if r.SizeVT() < limit || len(r.Events) < 2 {
		return []*pb.WatchResponse{r}
	}
	for rest := r.Events; len(rest) > 0; {
		part := &pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Fragment: true}
		for len(rest) > 0 {
			part.Events = append(part.Events, rest[0])
			if len(part.Events) > 1 && part.SizeVT() >= limit {
				part.Events = part.Events[:len(part.Events)-1]
				break
			}
			rest = rest[1:]
		}
		part.Fragment = len(rest) > 0
		parts = append(parts, part)
	}
	return parts
}

// FuzzFragments compares what Fill makes of one revision with fragmentsOf,
// however small the pieces it is asked for. Each byte of sizes is an event.
func FuzzFragments(f *testing.F) {
	f.Add([]byte{1, 2, 3}, uint16(100), uint16(50), uint8(0), int64(0))
	f.Add([]byte{200, 200, 0, 0, 200, 255}, uint16(150), uint16(1), uint8(1), int64(300))
	f.Add(bytes.Repeat([]byte{9}, 100), uint16(400), uint16(9999), uint8(2), int64(-1))
	f.Fuzz(func(t *testing.T, sizes []byte, limit, pieces uint16, v uint8, id int64) {
		if len(sizes) == 0 || len(sizes) > 1000 || id == invalidWatchID {
			return
		}
		r := newRig(t, Options{FragmentBytes: int(limit), StreamPendingBytes: 1 << 30})
		defer r.hub.Close()
		var first, second []op
		for i, n := range sizes {
			k := fmt.Sprintf("k%04d", i)
			first = append(first, put(k, strings.Repeat("p", int(n)/2)))
			if n%3 == 0 {
				second = append(second, del(k))
			} else {
				second = append(second, put(k, strings.Repeat("v", int(n))))
			}
		}
		r.txn(first...)
		c := r.open()
		req := &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), Fragment: true, WatchId: id, PrevKv: v&1 != 0}
		if v&2 != 0 {
			req.Filters = append(req.Filters, pb.WatchCreateRequest_NOPUT)
		}
		c.create(req)
		c.drain()
		r.txn(second...)

		whole := &pb.WatchResponse{Header: &pb.ResponseHeader{}, WatchId: id}
		if err := whole.Header.UnmarshalVT(testHeader(nil, 3)); err != nil {
			t.Fatal(err)
		}
		for _, e := range r.m.expected("k", "l", 3, variantOf(req)) {
			ev := &mvccpb.Event{Kv: e.kv}
			if e.del {
				ev.Type = mvccpb.Event_DELETE
			}
			if req.PrevKv {
				ev.PrevKv = e.prev
			}
			whole.Events = append(whole.Events, ev)
		}
		var expected []*pb.WatchResponse
		if len(whole.Events) > 0 {
			expected = fragmentsOf(whole, int(r.hub.opts.FragmentBytes))
		}
		var got []*pb.WatchResponse
		for more := true; more; {
			var some []*pb.WatchResponse
			some, more = c.fill(int(pieces))
			got = append(got, some...)
		}
		if !slices.EqualFunc(got, expected, func(a, b *pb.WatchResponse) bool { return proto.Equal(a, b) }) {
			t.Fatalf("%d parts, want %d", len(got), len(expected))
		}
	})
}

// TestMatcher compares the matcher with a list of ranges under random changes.
func TestMatcher(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	letters := "ab\x00\xff"
	word := func(n int) []byte {
		b := make([]byte, rnd.IntN(n))
		for i := range b {
			b[i] = letters[rnd.IntN(len(letters))]
		}
		return b
	}
	type watched struct {
		c        *cursor
		key, end string
	}
	var m matcher
	var list []watched
	long := strings.Repeat("a", 100) // prefixes of more lengths than are kept in maps
	for i := range 30000 {
		if len(list) > 300 || len(list) > 0 && rnd.IntN(3) == 0 {
			n := rnd.IntN(len(list))
			m.detach(list[n].c)
			list = slices.Delete(list, n, n+1)
			continue
		}
		w := watched{key: string(word(4)), end: string(word(4)), c: &cursor{variant: variant(rnd.IntN(8))}}
		switch rnd.IntN(5) {
		case 0:
			w.end = ""
		case 1:
			w.end = "\x00"
		case 2, 3:
			if rnd.IntN(2) == 0 {
				w.key = long[:rnd.IntN(100)] + w.key
			}
			end, unbounded := prefixEnd([]byte(w.key))
			if w.end = end; unbounded {
				w.end = "\x00"
			}
		}
		if w.key == "" {
			w.key = "\x00"
		}
		sp, ok := spanOf([]byte(w.key), []byte(w.end))
		if empty := len(w.end) > 0 && w.end != "\x00" && w.key >= w.end; ok == empty {
			t.Fatalf("[%q, %q) empty: %v", w.key, w.end, empty)
		}
		if !ok {
			continue
		}
		m.attach(m.add(sp), w.c)
		list = append(list, w)
		if i%10 > 0 {
			continue
		}
		probe := string(word(5))
		if rnd.IntN(3) == 0 {
			probe = long[:rnd.IntN(100)] + probe
		}
		if probe == "" {
			continue
		}
		found := map[*cursor]bool{}
		for _, g := range m.match(nil, []byte(probe)) {
			for _, c := range g.cursors {
				if found[c] {
					t.Fatalf("%q found twice", probe)
				}
				found[c] = true
			}
		}
		for _, w := range list {
			if inRange(probe, w.key, w.end) != found[w.c] {
				t.Fatalf("seed %d: %q in [%q, %q): found %v", seed, probe, w.key, w.end, found[w.c])
			}
		}
		if i%100 == 0 {
			m.checkInvariants(t, func(*cursor) {})
		}
	}
	for _, w := range list {
		m.detach(w.c)
	}
	if m.groups != 0 || len(m.exact)+len(m.prefixes)+len(m.hot) != 0 || m.all != nil || m.ranges.root != nil {
		t.Fatalf("left over: %+v", m)
	}
}

// TestHeaderBytes: the header's length may need more than one byte.
func TestHeaderBytes(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 129, 20000} {
		body := bytes.Repeat([]byte{7}, n)
		got := appendHeaderField([]byte("x"), func(dst []byte, _ int64) []byte { return append(dst, body...) }, 1)
		expected := append([]byte{'x', tagHeader}, binaryAppend(n)...)
		if !bytes.Equal(got, append(expected, body...)) {
			t.Fatalf("%d: %x", n, got[:min(len(got), 10)])
		}
	}
}

func binaryAppend(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}
