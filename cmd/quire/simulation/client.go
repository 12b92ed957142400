package simulation

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"quire/api/mvccpb"
	"quire/engine"
	"quire/raft"

	pb "quire/api/etcdserverpb"
)

// patience is how long somebody waits for an answer at most, in steps.
const patience = 300

// client does one thing after the other, at any member.
type client struct {
	w     *world
	id    int
	count int
	op    *operation // under way
	next  int64      // step of the next one
	lease int64      // its own, 0: none
	ttl   int64
	wait  int64            // for an answer, in steps
	known map[string]int64 // modification revisions that it has seen
}

// operation is one request of a client.
type operation struct {
	c     *client
	m     *member // where it was sent
	what  string
	wire  []byte // of a write
	began int64
	floor int64 // rank that was acknowledged to anybody before it began
	index uint64
	place int
	done  bool
	told  bool // what it did
	err   error
	reply engine.Reply
	body  []byte
	// then is called when the operation is acknowledged, which for a read is when
	// it may be done.
	then func(*operation)
}

// Applied implements engine.Waiter.
func (o *operation) Applied(rep *engine.Reply) {
	w := o.c.w
	o.finish(rep.Err)
	o.told = true
	o.body = append([]byte(nil), rep.Body...)
	o.reply = engine.Reply{Revision: rep.Revision, Err: rep.Err, Body: o.body}
	want := w.ref.replies[o.index]
	if o.m.engine.AppliedIndex() == 0 || o.place >= len(want) {
		w.fail("%s of client %d is answered at entry %d, which has %d operations", o.what, o.c.id, o.index, len(want))
	}
	if a := &want[o.place]; !a.same(rep) {
		w.fail("%s of client %d at entry %d: member %d answers revision %d, %v, %x; the reference %d, %v, %x", o.what, o.c.id, o.index,
			o.m.n.id, rep.Revision, rep.Err, rep.Body, a.rev, a.err, a.body)
	}
}

// Dropped implements engine.Waiter.
func (o *operation) Dropped(err error) {
	o.finish(err)
	if errors.Is(err, raft.ErrProposalDropped) || errors.Is(err, raft.ErrNoLeader) {
		o.never()
	}
}

// ReadReady implements raft.ReadWaiter.
func (o *operation) ReadReady(err error) { o.finish(err) }

func (o *operation) finish(err error) {
	if o.done {
		o.c.w.fail("%s of client %d is answered twice: %v, %v", o.what, o.c.id, o.err, err)
	}
	o.done, o.err = true, err
}

// never notes that the operation must not be applied any more.
func (o *operation) never() {
	w := o.c.w
	if _, once := w.ref.issued[string(o.wire)]; !once {
		return // others look the same
	}
	if at := w.ref.issued[string(o.wire)]; at != 0 {
		w.fail("%s of client %d was certainly dropped (%v), but is entry %d", o.what, o.c.id, o.err, at)
	}
	w.ref.void[string(o.wire)] = true
}

// turn is the client's share of a step.
func (c *client) turn() {
	w := c.w
	o := c.op
	switch {
	case o == nil:
		if w.faulty && w.now >= c.next {
			c.start()
		}
		return
	case o.done:
		c.end()
	case o.m.gone() || w.now-o.began > c.wait:
		c.op = nil
		if o.wire != nil {
			w.stats.Unknown++
		}
		w.note("client %d does not know what became of %s", c.id, o.what)
	default:
		return
	}
	c.next = w.now + int64(w.rng.IntN(8))
}

// end looks at an answer.
func (c *client) end() {
	w, o := c.w, c.op
	c.op = nil
	if o.err == nil && o.then != nil {
		o.then(o)
	}
	w.note("client %d: %s at member %d, entry %d: revision %d", c.id, o.what, o.m.n.id, o.index, o.reply.Revision)
	if o.wire != nil && !o.told {
		w.stats.Unknown++
	}
	if o.wire == nil || !o.told {
		return
	}
	// What the state machine refuses is as good an answer as any.
	w.stats.Acked++
	c.rank(o, o.reply.Revision, w.ref.replies[o.index][o.place].writes)
}

// rank checks linearizability: nothing that is acknowledged takes effect before
// what was acknowledged before it began.
func (c *client) rank(o *operation, rev int64, writes bool) {
	w := c.w
	if rev < o.floor || writes && rev == o.floor {
		w.fail("%s of client %d took effect at revision %d, but revision %d had been acknowledged when it began", o.what, c.id, rev, o.floor)
	}
	w.floor = max(w.floor, rev)
}

// start begins something.
func (c *client) start() {
	w := c.w
	m := w.up()
	if m == nil {
		return
	}
	c.count++
	c.op = &operation{c: c, m: m, began: w.now, floor: w.floor}
	switch k := w.rng.IntN(100); {
	case k < 35:
		c.put(false)
	case k < 45:
		c.put(true)
	case k < 55:
		c.swap()
	case k < 62:
		c.delete()
	case k < 80:
		c.read()
	case k < 84:
		c.readHere()
	case k < 89:
		c.grantOrRevoke()
	case k < 96:
		c.renew()
	case k < 97:
		c.account()
	default:
		c.compact()
	}
	m.n.look()
}

func (c *client) key() []byte { return fmt.Appendf(nil, "k%02d", c.w.rng.IntN(c.w.p.keys)) }

// value is unlike any other.
func (c *client) value() []byte {
	n := c.w.rng.IntN(120)
	switch c.w.rng.IntN(40) {
	case 0:
		n = 5000
	case 1:
		n = 1500
	}
	return fmt.Appendf(nil, "%d.%d.%s", c.id, c.count, strings.Repeat("x", n))
}

type vtMessage interface{ MarshalVT() ([]byte, error) }

// propose sends a write. An operation whose bytes are unlike any other may be
// applied once.
func (c *client) propose(what string, kind engine.OpKind, req vtMessage, once bool) {
	o, w := c.op, c.w
	body, err := req.MarshalVT()
	w.check(err, "encode")
	o.what, o.wire = what, engine.AppendOp(nil, kind, body)
	if once {
		w.ref.issued[string(o.wire)] = 0
	}
	if w.percent(30) {
		err = o.m.raft.Enqueue(o, o.wire[:1], o.wire[1:])
	} else {
		err = o.m.raft.Propose(o.wire, o)
	}
	if err != nil && !o.done {
		o.finish(err)
		o.never()
	}
}

func (c *client) put(leased bool) {
	req := &pb.PutRequest{Key: c.key(), Value: c.value(), PrevKv: c.w.percent(30)}
	if leased {
		req.Lease = c.lease
	}
	c.propose("put", engine.OpPut, req, true)
}

func (c *client) delete() {
	req := &pb.DeleteRangeRequest{Key: c.key(), PrevKv: c.w.percent(50)}
	if c.w.percent(10) {
		req.Key, req.RangeEnd = []byte("k"), []byte("l")
	}
	c.propose("delete", engine.OpDeleteRange, req, false)
}

// swap writes a key if it is as this client has seen it.
func (c *client) swap() {
	key := c.key()
	req := &pb.TxnRequest{
		Compare: []*pb.Compare{{Target: pb.Compare_MOD, Key: key, TargetUnion: &pb.Compare_ModRevision{ModRevision: c.known[string(key)]}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: c.value()}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}},
	}
	c.op.then = func(o *operation) {
		var r pb.TxnResponse
		c.w.check(r.UnmarshalVT(o.body), "transaction")
		if !r.Succeeded {
			c.learn(r.Responses[0].GetResponseRange().Kvs, key)
		}
	}
	c.propose("swap", engine.OpTxn, req, true)
}

func (c *client) learn(kvs []*mvccpb.KeyValue, key []byte) {
	if c.known == nil {
		c.known = map[string]int64{}
	}
	c.known[string(key)] = 0
	for _, kv := range kvs {
		c.known[string(kv.Key)] = kv.ModRevision
	}
}

// read is a linearizable range.
func (c *client) read() {
	o, req := c.op, c.randomRange()
	o.what = "read"
	o.then = func(o *operation) {
		if o.m.gone() {
			return
		}
		rev := c.rangeAt(o, req)
		c.w.stats.Reads++
		c.rank(o, rev, false)
		o.reply.Revision = rev
	}
	if o.m.raft.ReadIndex(o) {
		o.done = true
	}
}

func (c *client) randomRange() *pb.RangeRequest {
	if c.w.percent(50) {
		return &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l"), Limit: int64(c.w.rng.IntN(5))}
	}
	return &pb.RangeRequest{Key: c.key()}
}

// rangeAt reads at a member, and compares with the reference.
func (c *client) rangeAt(o *operation, req *pb.RangeRequest) int64 {
	w := c.w
	body, rev, err := o.m.engine.Range(req, nil)
	if err != nil {
		if !o.m.n.harmed() {
			w.fail("member %d cannot read: %v", o.m.n.id, err)
		}
		return max(o.floor, o.m.engine.Revision())
	}
	if want, ok := w.ref.rangeAt(req, rev); ok && !bytes.Equal(body, want) {
		w.fail("%s of client %d at revision %d: member %d has %x, the reference %x", o.what, c.id, rev, o.m.n.id, body, want)
	}
	var r pb.RangeResponse
	w.check(r.UnmarshalVT(body), "range")
	if len(req.RangeEnd) == 0 {
		c.learn(r.Kvs, req.Key)
	}
	return rev
}

// readHere is a serializable read: of the past perhaps, but not back and forth.
func (c *client) readHere() {
	o := c.op
	o.what, o.done = "local read", true
	rev := c.rangeAt(o, c.randomRange())
	if rev < o.m.seen {
		c.w.fail("member %d shows revision %d after %d", o.m.n.id, rev, o.m.seen)
	}
	o.m.seen, o.reply.Revision = rev, rev
}

func (c *client) grantOrRevoke() {
	if c.lease != 0 && c.w.percent(40) {
		id := c.lease
		c.lease = 0
		c.propose("revoke", engine.OpLeaseRevoke, &pb.LeaseRevokeRequest{ID: id}, true)
		return
	}
	id, ttl := int64(c.id*100_000+c.count), pick[int64](c.w.rng, 1, 2, 4, 8, 15)
	c.op.then = func(o *operation) {
		c.lease, c.ttl = id, ttl
		c.w.ref.promise(id, o.began+ttl*1e9/stepNanos)
	}
	c.propose("grant", engine.OpLeaseGrant, &pb.LeaseGrantRequest{ID: id, TTL: ttl}, true)
}

// account changes users or roles.
func (c *client) account() {
	if c.w.percent(50) {
		c.propose("user", engine.OpUserAdd, &pb.AuthUserAddRequest{Name: fmt.Sprintf("u%d", c.w.rng.IntN(5)), HashedPassword: fmt.Sprint(c.id, c.count)}, true)
		return
	}
	c.propose("role", engine.OpRoleAdd, &pb.AuthRoleAddRequest{Name: fmt.Sprintf("r%d", c.w.rng.IntN(5))}, false)
}

// renew keeps the lease alive, at one who says that it leads: the renewal counts
// when the log has forgotten what it knew of the time left, and when it is certain
// that the member still led.
func (c *client) renew() {
	o, w := c.op, c.w
	o.what = "renewal"
	for _, n := range w.machines {
		if n.m != nil && !n.paused() && n.m.raft.Status().IsLeader {
			if o.m = n.m; w.percent(50) { // there may be two
				break
			}
		}
	}
	if c.lease == 0 || !o.m.raft.Status().IsLeader {
		o.done = true
		return
	}
	id, until, term := c.lease, w.now+c.ttl*1e9/stepNanos, o.m.raft.Status().Term
	_, clear, err := o.m.engine.LeaseRenewal(id)
	if err != nil {
		o.done = true
		if errors.Is(err, engine.ErrLeaseNotFound) {
			c.lease = 0
		}
		return
	}
	promise := func(o *operation) {
		if s := o.m.raft.Status(); o.m.gone() || !s.IsLeader || s.Term != term {
			return
		}
		w.ref.promise(id, until)
		w.stats.Renewals++
	}
	confirm := func() {
		o.then = promise
		if o.m.raft.ReadIndex(o) {
			o.done = true
		}
	}
	if clear == nil {
		confirm()
		return
	}
	o.then = func(*operation) { // the same again, for the second part
		again := &operation{c: c, m: o.m, what: "renewal", began: o.began, floor: o.floor, then: promise}
		if o.m.gone() {
			return
		}
		if again.m.raft.ReadIndex(again) {
			again.done = true
		}
		c.op = again
	}
	o.wire = clear
	if err := o.m.raft.Propose(clear, o); err != nil {
		o.finish(err)
	}
}

func (c *client) compact() {
	m := c.op.m
	rev := m.engine.Revision() - int64(c.w.rng.IntN(20))
	c.propose("compaction", engine.OpCompact, &pb.CompactionRequest{Revision: max(rev, 0)}, false)
}
