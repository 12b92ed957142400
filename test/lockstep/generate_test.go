package lockstep

import (
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// generator makes random steps. It learns from the reference's answers where the store is, so that revisions, keys and
// leases are often, but not always, ones that are there.
type generator struct {
	random    *rand.Rand
	queue     []step // steps that have to come next
	revision  int64
	compacted int64
	watchers  []int64 // ids on the long-lived stream
	restarts  bool    // whether to restart the servers now and then
	mangles   int     // how many in a hundred requests are damaged messages

	everCompacted map[int64]bool // each revision that was a compact revision

	width int // of the numbered keys: a few that are written often, or many
	often int // how many in a hundred keys are numbered ones
}

func newGenerator(seed uint64) *generator {
	g := &generator{random: rand.New(rand.NewPCG(seed, 0)), revision: 1, everCompacted: map[int64]bool{}, width: 60, often: 10}
	if seed%3 == 0 {
		g.width, g.often = 5000, 70
	}
	return g
}

// next is the next step.
func (g *generator) next() step {
	if len(g.queue) == 0 {
		g.queue = g.group()
	}
	s := g.queue[0]
	g.queue = g.queue[1:]
	return s
}

// learn takes the reference's answer to the last step.
func (g *generator) learn(s step, a answer) {
	if h := a.header(); h != nil {
		g.revision = max(g.revision, h.GetRevision())
	}
	if a.code != "" {
		return
	}
	switch {
	case s.method == "Compact":
		if r, ok := s.msg.(*pb.CompactionRequest); ok {
			g.compacted = r.Revision
			g.everCompacted[r.Revision] = true
		}
	case s.method == watchCreate:
		if r := a.responses[0].(*pb.WatchResponse); !r.Canceled {
			g.watchers = append(g.watchers, r.WatchId)
		}
	case s.method == restart:
		g.watchers = nil
	}
}

// group is one step, or several that belong together.
func (g *generator) group() []step {
	one := func(method string, msg proto.Message) []step { return []step{{method: method, msg: msg}} }
	if g.random.IntN(100) < g.mangles {
		return []step{g.mangled()}
	}
	synced := func(method string, msg proto.Message) []step {
		return []step{{method: watchSync}, {method: method, msg: msg}}
	}
	switch n := g.random.IntN(1000); {
	case n < 260:
		return one("Put", g.put())
	case n < 480:
		return one("Range", g.rangeRequest())
	case n < 520:
		return one("RangeStream", g.rangeRequest())
	case n < 600:
		return one("DeleteRange", g.deleteRange())
	case n < 830:
		r := g.txn(0)
		if deletesToTheEnd(r) {
			dropIgnores(r)
		}
		return one("Txn", r)
	case n < 840:
		return synced("Compact", &pb.CompactionRequest{Revision: g.compactRevision(), Physical: g.random.IntN(2) == 0})
	case n < 920:
		return g.leaseStep()
	case n < 940:
		return one("HashKV", &pb.HashKVRequest{Revision: g.hashRevision()})
	case n < 955:
		return g.watchStep()
	case n < 960:
		return []step{{method: watchSync}}
	case n < 961 && g.restarts:
		return []step{{method: watchSync}, {method: restart}}
	default:
		return one("Put", g.put())
	}
}

var keys = []string{"a", "a/", "a/1", "a/2", "a/3", "b", "b/1", "b/2", "c", "d", "\x00", "\x00\x00", "\xff", "\xff\xff", "é"}

// key is mostly one of a few, so that requests meet.
func (g *generator) key() []byte {
	switch n := g.random.IntN(100); {
	case n < 1:
		return nil
	case n < 2:
		return []byte(strings.Repeat("k", g.random.IntN(300)))
	case n < 2+g.often:
		return g.numbered()
	}
	return []byte(keys[g.random.IntN(len(keys))])
}

func (g *generator) numbered() []byte { return fmt.Appendf(nil, "key%04d", g.random.IntN(g.width)) }

// end is a range end: often none.
func (g *generator) end() []byte {
	switch n := g.random.IntN(10); {
	case n < 4:
		return nil
	case n < 5:
		return []byte{0}
	case n < 6:
		return []byte("a0") // of the prefix a/
	}
	return g.key()
}

func (g *generator) value() []byte {
	switch n := g.random.IntN(50); {
	case n < 3:
		return nil
	case n < 4:
		return make([]byte, g.random.IntN(20_000))
	}
	return fmt.Append(nil, g.random.IntN(12))
}

// atRevision is a revision to read at: mostly none, else around those that can be read.
func (g *generator) atRevision() int64 {
	switch n := g.random.IntN(20); {
	case n < 10:
		return 0
	case n < 11:
		return g.extreme()
	case n < 14:
		return g.compacted + g.random.Int64N(5) - 2
	}
	return max(0, g.revision-g.random.Int64N(max(2, g.revision-g.compacted))+1)
}

// hashRevision is none at which the store was ever compacted: there upstream answers, until a restart, with a hash that
// it took before the compaction.
func (g *generator) hashRevision() int64 {
	if rev := g.atRevision(); !g.everCompacted[rev] {
		return rev
	}
	if g.everCompacted[0] {
		return g.revision + 1 // to 0 etcd answers with the hash of nothing from now on, see docs/differences.md
	}
	return 0
}

// filterRevision is a bound for a revision of a key.
func (g *generator) filterRevision() int64 {
	if g.random.IntN(12) > 0 {
		return 0
	}
	if g.random.IntN(10) == 0 {
		return g.extreme()
	}
	return max(1, g.revision-g.random.Int64N(40))
}

func (g *generator) extreme() int64 {
	return []int64{-1, math.MinInt64, math.MaxInt64, math.MaxInt64 - 1, 1 << 32, -1 << 32}[g.random.IntN(6)]
}

// compactRevision leaves some history most of the time.
func (g *generator) compactRevision() int64 {
	switch n := g.random.IntN(10); {
	case n < 1:
		return g.extreme()
	case n < 2:
		return g.compacted - g.random.Int64N(3)
	case n < 3:
		return g.revision + g.random.Int64N(3)
	}
	return max(1, g.revision-g.random.Int64N(60))
}

func (g *generator) rarely() bool { return g.random.IntN(8) == 0 }

func (g *generator) rangeRequest() *pb.RangeRequest {
	r := &pb.RangeRequest{
		Key: g.key(), RangeEnd: g.end(), Revision: g.atRevision(),
		KeysOnly: g.rarely(), CountOnly: g.rarely(), Serializable: g.random.IntN(2) == 0,
		MinModRevision: g.filterRevision(), MaxModRevision: g.filterRevision(),
		MinCreateRevision: g.filterRevision(), MaxCreateRevision: g.filterRevision(),
	}
	if g.random.IntN(3) == 0 {
		r.Limit = g.random.Int64N(12)
	}
	if g.random.IntN(60) == 0 {
		r.Limit = g.extreme()
	}
	if g.random.IntN(4) == 0 {
		r.SortOrder, r.SortTarget = pb.RangeRequest_SortOrder(g.random.IntN(3)), g.sortTarget(r)
	}
	if g.random.IntN(100) == 0 {
		r.SortOrder = pb.RangeRequest_SortOrder(g.random.IntN(9) - 3)
	}
	if g.random.IntN(100) == 0 {
		r.SortTarget = pb.RangeRequest_SortTarget(5 + g.random.IntN(3))
	}
	return r
}

// sortTarget is one by which keys have an order that is defined: upstream's sort is not stable, so keys that are equal
// in a target come in any order. Only the key itself is never equal.
func (g *generator) sortTarget(r *pb.RangeRequest) pb.RangeRequest_SortTarget {
	if len(r.RangeEnd) > 0 {
		return pb.RangeRequest_KEY
	}
	return pb.RangeRequest_SortTarget(g.random.IntN(5))
}

func (g *generator) put() *pb.PutRequest {
	r := &pb.PutRequest{Key: g.key(), Value: g.value(), PrevKv: g.random.IntN(3) == 0}
	if g.random.IntN(6) == 0 {
		r.Lease = g.lease()
	}
	if g.rarely() {
		r.IgnoreValue = true
		if g.random.IntN(10) > 0 {
			r.Value = nil
		}
	}
	if g.rarely() {
		r.IgnoreLease = true
		if g.random.IntN(10) > 0 {
			r.Lease = 0
		}
	}
	return r
}

func (g *generator) deleteRange() *pb.DeleteRangeRequest {
	r := &pb.DeleteRangeRequest{Key: g.key(), PrevKv: g.random.IntN(2) == 0}
	if g.random.IntN(4) == 0 {
		r.RangeEnd = g.end()
	}
	return r
}

func (g *generator) txn(depth int) *pb.TxnRequest {
	r := &pb.TxnRequest{}
	for range g.random.IntN(3) {
		r.Compare = append(r.Compare, g.compare())
	}
	for range g.random.IntN(4) {
		r.Success = append(r.Success, g.op(depth))
	}
	for range g.random.IntN(3) {
		r.Failure = append(r.Failure, g.op(depth))
	}
	if depth == 0 && g.random.IntN(100) == 0 { // too many, or just not
		from := g.random.IntN(g.width)
		for i := range 126 + g.random.IntN(5) {
			r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Appendf(nil, "key%04d", from+i)}}})
		}
	}
	return r
}

// deletesToTheEnd tells whether a txn deletes from some key on. Upstream overlooks that such a range may hold a key that
// the same txn puts; if that put wants to keep the key's value or lease, upstream panics, and again at each restart.
func deletesToTheEnd(r *pb.TxnRequest) bool {
	for op := range eachOp(r) {
		if end := op.GetRequestDeleteRange().GetRangeEnd(); len(end) == 1 && end[0] == 0 {
			return true
		}
	}
	return false
}

// dropIgnores takes the wish to keep value or lease from all puts of a txn.
func dropIgnores(r *pb.TxnRequest) {
	for op := range eachOp(r) {
		if p := op.GetRequestPut(); p != nil {
			p.IgnoreValue, p.IgnoreLease = false, false
		}
	}
}

// eachOp goes through the operations of a txn and of those in it.
func eachOp(r *pb.TxnRequest) iter.Seq[*pb.RequestOp] {
	return func(yield func(*pb.RequestOp) bool) {
		for _, op := range slices.Concat(r.Success, r.Failure) {
			if !yield(op) {
				return
			}
			if inner := op.GetRequestTxn(); inner != nil {
				for op := range eachOp(inner) {
					if !yield(op) {
						return
					}
				}
			}
		}
	}
}

func (g *generator) op(depth int) *pb.RequestOp {
	switch n := g.random.IntN(100); {
	case n < 40:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: g.put()}}
	case n < 70:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}}
	case n < 88:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: g.deleteRange()}}
	case n < 99 && depth < 4:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txn(depth + 1)}}
	case n < 99:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}}
	}
	return &pb.RequestOp{}
}

func (g *generator) compare() *pb.Compare {
	c := &pb.Compare{Key: g.key(), Result: pb.Compare_CompareResult(g.random.IntN(4))}
	if g.random.IntN(6) == 0 {
		c.RangeEnd = g.end()
	}
	n := g.random.Int64N(3)
	if g.random.IntN(3) == 0 {
		n = g.revision - g.random.Int64N(30)
	}
	if g.random.IntN(40) == 0 {
		n = g.extreme()
	}
	unions := map[pb.Compare_CompareTarget]func(){
		pb.Compare_VERSION: func() { c.TargetUnion = &pb.Compare_Version{Version: n} },
		pb.Compare_CREATE:  func() { c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: n} },
		pb.Compare_MOD:     func() { c.TargetUnion = &pb.Compare_ModRevision{ModRevision: n} },
		pb.Compare_VALUE:   func() { c.TargetUnion = &pb.Compare_Value{Value: g.value()} },
		pb.Compare_LEASE:   func() { c.TargetUnion = &pb.Compare_Lease{Lease: g.lease()} },
	}
	c.Target = pb.Compare_CompareTarget(g.random.IntN(5))
	unions[c.Target]()
	if g.random.IntN(30) == 0 { // a target that does not go with its value
		c.Target = pb.Compare_CompareTarget(g.random.IntN(7))
	}
	if g.random.IntN(60) == 0 {
		c.TargetUnion = nil
	}
	if g.random.IntN(100) == 0 {
		c.Result = pb.Compare_CompareResult(g.random.IntN(9) - 2)
	}
	return c
}

// lease is an id, mostly one that may be granted.
func (g *generator) lease() int64 {
	if g.random.IntN(40) == 0 {
		return g.extreme()
	}
	return 1 + g.random.Int64N(8)
}

// leaseStep never grants id 0, which would be random, nor a time that could end during a run.
func (g *generator) leaseStep() []step {
	switch n := g.random.IntN(10); {
	case n < 4:
		ttl := 100_000 + g.random.Int64N(1000)
		if g.random.IntN(10) == 0 {
			ttl = []int64{9_000_000_000, 9_000_000_001, math.MaxInt64}[g.random.IntN(3)]
		}
		return []step{{method: "Grant", msg: &pb.LeaseGrantRequest{ID: g.lease(), TTL: ttl}}}
	case n < 6:
		return []step{{method: "Revoke", msg: &pb.LeaseRevokeRequest{ID: g.lease()}}}
	case n < 8:
		return []step{{method: "TimeToLive", msg: &pb.LeaseTimeToLiveRequest{ID: g.lease(), Keys: g.random.IntN(2) == 0}}}
	case n < 9:
		return []step{{method: "KeepAlive", msg: &pb.LeaseKeepAliveRequest{ID: g.lease()}}}
	}
	return []step{{method: "Leases", msg: &pb.LeaseLeasesRequest{}}}
}

func (g *generator) watchStep() []step {
	if len(g.watchers) > 0 && g.random.IntN(4) == 0 {
		i := g.random.IntN(len(g.watchers))
		id := g.watchers[i]
		g.watchers = slices.Delete(g.watchers, i, i+1)
		return []step{{method: watchSync}, {method: watchCancel, msg: &pb.WatchCancelRequest{WatchId: id}}}
	}
	r := &pb.WatchCreateRequest{Key: g.key(), RangeEnd: g.end(), PrevKv: g.random.IntN(2) == 0, Fragment: g.rarely(), ProgressNotify: g.rarely()}
	for f := range pb.WatchCreateRequest_FilterType(2) {
		if g.rarely() {
			r.Filters = append(r.Filters, f)
		}
	}
	if g.random.IntN(2) == 0 {
		r.StartRevision = g.atRevision()
		return []step{{method: watchAlone, msg: r}}
	}
	if g.random.IntN(3) == 0 {
		r.WatchId = g.random.Int64N(20)
	}
	if g.random.IntN(2) == 0 { // in the past, but not before the compaction, which would block the stream's progress
		r.StartRevision = max(g.compacted, 1) + g.random.Int64N(max(1, g.revision-max(g.compacted, 1)))
	}
	return []step{{method: watchCreate, msg: r}}
}

// mangled is a request of the key-value service whose bytes were damaged: cut, changed, or with something added.
func (g *generator) mangled() step {
	name := []string{"Range", "Put", "DeleteRange", "Txn", "Txn"}[g.random.IntN(5)]
	msg := map[string]func() proto.Message{
		"Range": func() proto.Message { return g.rangeRequest() }, "Put": func() proto.Message { return g.put() },
		"DeleteRange": func() proto.Message { return g.deleteRange() }, "Txn": func() proto.Message { return g.txn(0) },
	}[name]()
	if r, ok := msg.(*pb.TxnRequest); ok {
		dropIgnores(r)
	}
	raw := append([]byte{}, step{msg: msg}.bytes()...)
	switch n := g.random.IntN(6); {
	case n < 2 && len(raw) > 0:
		raw = raw[:g.random.IntN(len(raw))]
	case n < 4 && len(raw) > 0:
		raw[g.random.IntN(len(raw))] ^= 1 << g.random.IntN(8)
	case n < 5:
		raw = append(raw, []byte{0xfa, 0x3f, 0x03, 'x', 'y', 'z'}...) // a field that nobody knows
	default:
		raw = append(raw, byte(g.random.IntN(256)))
	}
	return step{method: name, raw: raw}
}
