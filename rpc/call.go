package rpc

import (
	"context"
	"sync/atomic"
	"time"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// Handler serves one unary request. It runs on a goroutine of the transport
// and must end the call (Finish, Reply or Fail) now or later, from any
// goroutine. Unless its Method is marked Blocking it does not wait for
// anything.
type Handler func(*Call)

// keepCallBytes bounds the output memory that a pooled call retains.
const keepCallBytes = 64 << 10

// keepHeadBytes bounds the memory for an operation's head likewise; user names
// are short, but nothing bounds them.
const keepHeadBytes = 1 << 10

const (
	callOpen uint32 = iota
	callClaimed
)

// Call is one unary request in flight.
type Call struct {
	// Req is the request's wire encoding, valid until the call is released.
	Req []byte
	// Method is the row of the method table being served.
	Method *Method
	// Ctx carries the transport's cancellation and peer. Only Blocking
	// handlers and the slow-request log look at it.
	Ctx context.Context

	srv   *Server
	start time.Time
	// wake tells the transport that the call has ended or has to be continued
	// (see Continue). It is called at most twice and must not block.
	wake func(*Call)

	state atomic.Uint32 // callOpen → callClaimed, once
	refs  atomic.Int32

	// Written by the claimer before wake, read by the transport after it.
	out Out
	err *Status

	// next is the second phase; written before the wake that asks for it.
	next func(*Call)
	// applied ends the call in place of Reply once the proposal is applied.
	applied func(*Call, *engine.Reply)

	onlyReads bool // a transaction without writes

	kind [1]byte // the head of the operation being proposed
	as   []byte  // the same for one on behalf of a user
	own  bool    // the server's own call, which may everything

	// Decoded requests, reused. At most one is in use.
	rng   pb.RangeRequest
	txn   pb.TxnRequest
	count int64 // what the slow-request log calls the response count

	watch watchEntry // guarded by the watchdog's shard
	free  func(*Call)
}

// Begin readies a fresh or recycled call: one reference, held by the
// transport. wake and free are the transport's and survive recycling.
func (c *Call) begin(srv *Server, m *Method, req []byte) {
	c.srv, c.Method, c.Req = srv, m, req
	c.state.Store(callOpen)
	c.refs.Store(1)
	c.err, c.next, c.applied, c.count, c.own = nil, nil, nil, 0, false
	c.onlyReads = false
	c.out.Reset()
}

// hold adds a reference for a party that will call back.
func (c *Call) hold() { c.refs.Add(1) }

// release drops a reference; the last one recycles the call.
func (c *Call) release() {
	if c.refs.Add(-1) != 0 {
		return
	}
	c.Req, c.Ctx = nil, nil
	if c.out.buf != nil && cap(c.out.buf.data) > keepCallBytes {
		c.out.free()
	}
	if cap(c.as) > keepHeadBytes {
		c.as = nil
	}
	c.free(c)
}

// claim makes the caller the one who ends the call. Only the winner may write
// the result and wake the transport.
func (c *Call) claim() bool {
	return c.state.CompareAndSwap(callOpen, callClaimed)
}

// ended tells whether somebody has claimed the call.
func (c *Call) ended() bool { return c.state.Load() == callClaimed }

// body returns an empty buffer to which a handler appends the response's body
// before Finish. Only the goroutine that runs the handler may use it.
func (c *Call) body() []byte { return c.out.begin() }

// Finish ends the call with the body that was appended to body(), putting a
// header with revision rev in front.
func (c *Call) Finish(b []byte, rev int64) {
	if !c.claim() {
		return
	}
	c.out.end(b, c.srv.header.putBefore(b, headerRoom, rev))
	c.deliver()
}

// finishBare ends the call with a body that has no header.
func (c *Call) finishBare(b []byte) {
	if !c.claim() {
		return
	}
	c.out.end(b, headerRoom)
	c.deliver()
}

// Reply ends the call with a copy of body behind a header with revision rev.
func (c *Call) Reply(body []byte, rev int64) {
	if !c.claim() {
		return
	}
	b := append(c.body(), body...)
	c.out.end(b, c.srv.header.putBefore(b, headerRoom, rev))
	c.deliver()
}

// message is what Call.finishMessage encodes: a vtprotobuf message whose
// header field is left nil.
type message interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
}

// finishMessage ends the call with m behind a header with revision rev.
func (c *Call) finishMessage(m message, rev int64) {
	b, err := appendMessage(c.body(), m)
	if err != nil {
		c.Fail(err)
		return
	}
	c.Finish(b, rev)
}

func appendMessage(dst []byte, m message) ([]byte, error) {
	n, size := len(dst), m.SizeVT()
	for cap(dst) < n+size {
		dst = append(dst[:cap(dst)], 0)
	}
	dst = dst[:n+size]
	if _, err := m.MarshalToSizedBufferVT(dst[n:]); err != nil {
		return dst[:n], err
	}
	return dst, nil
}

// Fail ends the call with the status that the error table gives err.
func (c *Call) Fail(err error) {
	if !c.claim() {
		return
	}
	c.err = StatusOf(err)
	c.deliver()
}

func (c *Call) deliver() {
	c.srv.dog.remove(c)
	c.wake(c)
}

// Continue runs the second phase after a wake that did not end the call.
func (c *Call) Continue() {
	if next := c.next; next != nil {
		c.next = nil
		next(c)
	}
}

// Response returns the response's wire encoding and nil, or the status that
// ended the call. Valid until the call is released.
func (c *Call) Response() ([]byte, *Status) {
	if c.err != nil {
		return nil, c.err
	}
	return c.out.Bytes(), nil
}

// propose hands body to raft as an operation of this kind, which needs nobody's
// rights; Applied or Dropped ends the call.
func (c *Call) propose(kind engine.OpKind, body []byte) {
	if proposalBytes(body) > c.srv.cfg.MaxRequestBytes {
		c.Fail(errRequestTooLarge)
		return
	}
	c.kind[0] = byte(kind)
	c.enqueue(c.kind[:], body)
}

func (c *Call) enqueue(head, body []byte) {
	c.srv.proposals.pending.Add(1)
	c.hold()
	c.event("Send raft proposal")
	if err := c.srv.cfg.Raft.Enqueue(c, head, body); err != nil {
		c.srv.proposals.pending.Add(-1)
		c.srv.proposals.failed.Add(1)
		c.Fail(err)
		c.release()
		return
	}
	c.srv.cfg.Raft.Kick()
	c.srv.dog.add(c)
}

// Applied implements engine.Waiter.
func (c *Call) Applied(r *engine.Reply) {
	c.srv.proposals.pending.Add(-1)
	c.event("Receive raft result")
	if r.Err != nil {
		c.Fail(r.Err)
	} else if h := c.applied; h != nil {
		h(c, r)
	} else {
		c.Reply(r.Body, r.Revision)
	}
	c.release()
}

// Dropped implements engine.Waiter.
func (c *Call) Dropped(err error) {
	c.srv.proposals.pending.Add(-1)
	c.srv.proposals.failed.Add(1)
	c.Fail(err)
	c.release()
}

// linearize runs read once the applied state is at least as new as everything
// that was acknowledged before the call came: at once if raft can tell, else
// on the transport's goroutine when raft has called ReadReady.
func (c *Call) linearize(read func(*Call)) {
	c.hold()
	c.next = read
	if c.srv.cfg.Raft.ReadIndex(c) {
		c.next = nil
		c.release()
		read(c)
		return
	}
	c.srv.dog.add(c)
}

// ReadReady implements ReadWaiter.
func (c *Call) ReadReady(err error) {
	c.srv.reads.ended(err, c.srv.cfg.Clock.now().Sub(c.start))
	if err != nil {
		c.Fail(err)
	} else if !c.ended() {
		c.wake(c)
	}
	c.release()
}
