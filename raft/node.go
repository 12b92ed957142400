package raft

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Node is one running consensus member: a core behind a mutex, two to three
// goroutines, and what the steps leave to be done without the mutex.
//
// Lock order: applyMu, compactMu and sendMu before mu; mu before the locks of
// the queues. No call into StateMachine, Transport, Waiter or ReadWaiter
// happens under mu or a queue's lock.
type Node struct {
	cfg Config
	sm  StateMachine
	log Log // set once; the core appends to it
	q   queue
	rq  readQueue
	now atomic.Uint64 // ticks, for the queues
	pub published

	mu struct {
		sync.Mutex
		c   *core
		out []*raftpb.Message // for Transport, in order
	}

	// applyMu is held by whoever runs the state machine.
	applyMu   sync.Mutex
	g         group        // guarded by applyMu
	unapplied atomic.Int64 // items for the state machine

	// sendMu is held by whoever calls Transport.Send; unsent is a look at
	// mu.out without the lock.
	sendMu   sync.Mutex
	sendBuf  []*raftpb.Message // guarded by sendMu
	unsent   atomic.Int64
	applyC   chan struct{} // wakes the applier; holds one
	stopC    chan struct{}
	stopOnce sync.Once
	wg       sync.WaitGroup

	compactMu sync.Mutex

	fatal struct {
		sync.Mutex
		err  error
		done chan struct{}
	}
	leadMu struct {
		sync.Mutex
		changed chan struct{}
	}
}

// Open recovers the log through openLog, checks it against cfg and starts the
// member. The Node owns the log from then on.
func Open(cfg Config, openLog OpenLog, sm StateMachine) (*Node, error) {
	n, err := newNode(cfg, openLog, sm)
	if err != nil {
		return nil, err
	}
	n.wg.Add(3)
	go n.completionLoop()
	go n.applierLoop()
	go n.tickLoop()
	n.begin()
	return n, nil
}

func newNode(cfg Config, openLog OpenLog, sm StateMachine) (*Node, error) {
	cfg = cfg.withDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Session == 0 {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails
		cfg.Session = binary.LittleEndian.Uint64(b[:]) | 1
	}
	n := &Node{cfg: cfg, sm: sm}
	n.q.cfg, n.q.now, n.rq.now = &n.cfg, &n.now, &n.now
	n.applyC = make(chan struct{}, 1)
	n.stopC = make(chan struct{})
	n.fatal.done = make(chan struct{})
	n.leadMu.changed = make(chan struct{})
	snap, _ := sm.(Snapshotter)
	c, err := newCore(&n.cfg, openLog, &n.q, &n.rq, snap)
	if err != nil {
		return nil, err
	}
	n.mu.c, n.log = c, c.log
	return n, nil
}

// begin makes a single voter campaign at once: nobody else could lead. A
// member of a larger cluster waits for a leader, if wanted only one tick less
// than the election timeout is skipped.
func (n *Node) begin() {
	n.mu.Lock()
	c := n.mu.c
	switch {
	case c.mem.single:
		c.campaign()
	case n.cfg.AdvanceTicks:
		for range n.cfg.electionTicks() - 1 {
			c.tick()
		}
	}
	c.drain()
	n.exit(true)
}

// exit ends a step: it lets the core take up what came meanwhile, releases mu
// and carries out the effects. Whoever failed to get mu in the meantime relies
// on it: it looks again at the queues after the release. wake says that the
// applier must be told of committed entries, because the caller does not apply.
func (n *Node) exit(wake bool) {
	for {
		c := n.mu.c
		c.proposeWaiting()
		c.startReads()
		c.submit()
		ops, reads, open := n.q.waiting.Load(), n.rq.waiting.Load(), c.mayPropose()
		fx := n.takeEffects()
		n.mu.Unlock()
		n.run(&fx)
		if wake && n.unapplied.Load() > 0 {
			n.wakeApplier()
		}
		if (!open || n.q.waiting.Load() == ops) && n.rq.waiting.Load() == reads {
			return
		}
		if !n.mu.TryLock() {
			return // the holder looks again
		}
	}
}

// takeEffects publishes the core's state and takes what it left to do. mu is
// held.
func (n *Node) takeEffects() effects {
	c := n.mu.c
	if c.err != nil {
		c.dropAll(ErrStopped)
		c.committed.truncate(0)
	}
	n.pub.publish(c)
	n.unapplied.Store(int64(c.committed.len()))
	if c.err != nil {
		c.fx.msgs, n.mu.out = nil, nil // the end: nothing is sent any more
		n.unsent.Store(0)
	}
	if len(c.fx.msgs) > 0 {
		n.mu.out = append(n.mu.out, c.fx.msgs...)
		n.unsent.Store(int64(len(n.mu.out)))
		clear(c.fx.msgs)
		c.fx.msgs = c.fx.msgs[:0]
	}
	fx := c.fx
	fx.drops, fx.reads, fx.err = c.under.drops, c.rounds.done, c.err
	c.under.drops, c.rounds.done = nil, nil
	c.fx = effects{msgs: c.fx.msgs} // the slice is reused
	return fx
}

func (n *Node) run(fx *effects) {
	if n.unsent.Load() > 0 {
		n.send()
	}
	for _, d := range fx.drops {
		d.run(&n.q)
	}
	for _, r := range fx.reads {
		r.run()
	}
	for _, t := range fx.trims {
		close(t.done)
	}
	if fx.lead {
		n.leadMu.Lock()
		close(n.leadMu.changed)
		n.leadMu.changed = make(chan struct{})
		n.leadMu.Unlock()
	}
	if fx.err != nil && fx.err != ErrStopped {
		n.fail(fx.err)
	}
}

// send gives the messages to the transport, in order: one goroutine at a time,
// and the one that is at it takes what came in the meantime.
func (n *Node) send() {
	for n.unsent.Load() > 0 {
		if !n.sendMu.TryLock() {
			return
		}
		n.mu.Lock()
		n.sendBuf, n.mu.out = n.mu.out, n.sendBuf[:0]
		n.unsent.Store(0)
		n.mu.Unlock()
		if n.cfg.Transport != nil && len(n.sendBuf) > 0 {
			n.cfg.Transport.Send(n.sendBuf)
		}
		clear(n.sendBuf)
		n.sendMu.Unlock()
	}
}

func (n *Node) wakeApplier() {
	select {
	case n.applyC <- struct{}{}:
	default: // it is awake already
	}
}

// fail makes a broken log final.
func (n *Node) fail(err error) {
	n.fatal.Lock()
	defer n.fatal.Unlock()
	if n.fatal.err != nil {
		return
	}
	n.fatal.err = err
	close(n.fatal.done)
	n.q.stop()
	n.rq.stop()
}

// Done is closed when the log has failed: the process must end. Stop does not
// close it.
func (n *Node) Done() <-chan struct{} { return n.fatal.done }

// Err returns why Done is closed.
func (n *Node) Err() error {
	n.fatal.Lock()
	defer n.fatal.Unlock()
	return n.fatal.err
}

// Propose hands over one operation and sees to it that it is on its way. The
// bytes are copied. w is told the outcome unless an error is returned.
func (n *Node) Propose(op []byte, w Waiter) error {
	if err := n.q.push(w, op, nil); err != nil {
		return err
	}
	n.Kick()
	return nil
}

// Enqueue hands over one operation, the concatenation of head and body, and
// leaves it in the open batch. A caller that has several (the requests of one
// socket read) calls Kick after the last: they become one entry, one log
// record and one write.
func (n *Node) Enqueue(w Waiter, head, body []byte) error {
	return n.q.push(w, head, body)
}

// Kick proposes what waits, as far as the gate permits. If another goroutine is
// inside the core, that one does it.
func (n *Node) Kick() {
	if n.q.waiting.Load() > 0 && n.mu.TryLock() {
		n.exit(true)
	}
}

// ReadIndex asks whether the applied state may answer a linearizable read. If
// it returns true the read may go on now, and w is not called; otherwise w is
// told when. A single voter answers from an atomic.
func (n *Node) ReadIndex(w ReadWaiter) (ready bool) {
	if n.pub.inline.Load() {
		return true
	}
	if err := n.rq.push(w); err != nil {
		w.ReadReady(err)
		return false
	}
	if n.mu.TryLock() {
		n.exit(true)
	}
	return false
}

// ProposeConfChange proposes a membership change: wire bytes of a
// raftpb.ConfChangeV2 with one change and the automatic transition.
func (n *Node) ProposeConfChange(cc []byte, w Waiter) error {
	var v raftpb.ConfChangeV2
	if err := proto.Unmarshal(cc, &v); err != nil {
		return fmt.Errorf("%w: %w", ErrConfChangeInvalid, err)
	}
	if len(v.GetChanges()) != 1 || v.GetTransition() != raftpb.ConfChangeTransitionAuto {
		return ErrConfChangeInvalid
	}
	if err := n.q.pushConf(w, cc); err != nil {
		return err
	}
	n.Kick()
	return nil
}

// Step takes a message from a peer.
func (n *Node) Step(m *raftpb.Message) error {
	n.mu.Lock()
	err := n.mu.c.stepMessage(m)
	n.exit(true)
	return err
}

// StepAll takes messages from a peer, in order, as one step: what they append
// is one write. Messages that cannot be taken are dropped, as a network may. What
// they commit may be applied before it returns.
func (n *Node) StepAll(ms []*raftpb.Message) {
	n.mu.Lock()
	for _, m := range ms {
		if err := n.mu.c.stepMessage(m); err != nil {
			n.cfg.Logger.Debug("a message from a peer was not taken", zap.Stringer("type", m.GetType()), zap.Error(err))
		}
	}
	n.exit(false)
	n.applyHere()
}

// ReportUnreachable tells that messages to a peer may not have been delivered.
func (n *Node) ReportUnreachable(id uint64) {
	n.mu.Lock()
	if c := n.mu.c; c.err == nil {
		c.leaderLost = c.leaderLost || id == c.lead.lead
		c.rn.ReportUnreachable(id)
		c.drain()
	}
	n.exit(true)
}

// ReportSnapshot tells how the transfer of a snapshot to a peer ended.
func (n *Node) ReportSnapshot(id uint64, ok bool) {
	status := etcdraft.SnapshotFinish
	if !ok {
		status = etcdraft.SnapshotFailure
	}
	n.mu.Lock()
	if n.mu.c.err == nil {
		n.mu.c.snapshotEnded(id)
		n.mu.c.rn.ReportSnapshot(id, status)
		n.mu.c.drain()
	}
	n.exit(true)
}

// Campaign starts an election now.
func (n *Node) Campaign() {
	n.mu.Lock()
	n.mu.c.campaign()
	n.exit(true)
}

// LeaderNotify returns a channel that is closed at the next change of leader
// or term.
func (n *Node) LeaderNotify() <-chan struct{} {
	n.leadMu.Lock()
	defer n.leadMu.Unlock()
	return n.leadMu.changed
}

// TransferLeadership hands leadership to a peer and waits until somebody else
// leads. While it is under way proposals wait.
func (n *Node) TransferLeadership(ctx context.Context, to uint64) error {
	n.mu.Lock()
	c := n.mu.c
	if c.err != nil || !c.lead.isLeader || to == n.cfg.ID || !slices.Contains(c.mem.conf.GetVoters(), to) {
		n.exit(true)
		return fmt.Errorf("%w: cannot hand leadership to %x", ErrNotLeader, to)
	}
	changed := n.LeaderNotify()
	c.rn.TransferLeader(to)
	c.drain()
	n.exit(true)
	return n.awaitLeader(ctx, to, changed)
}

// HandOver is TransferLeadership to the peer that is best prepared. A member
// that does not lead, or has nobody to hand over to, returns at once.
func (n *Node) HandOver(ctx context.Context) error {
	n.mu.Lock()
	changed := n.LeaderNotify()
	to := n.mu.c.transferAway()
	n.exit(true)
	if to == 0 {
		return nil
	}
	return n.awaitLeader(ctx, to, changed)
}

// awaitLeader waits until to leads; that somebody else does is an error.
// changed is the channel of the change to come.
func (n *Node) awaitLeader(ctx context.Context, to uint64, changed <-chan struct{}) error {
	for {
		if lead := n.pub.lead.Load(); lead == to {
			return nil
		} else if lead != 0 && lead != n.cfg.ID {
			return fmt.Errorf("raft: %x leads now, not %x: %w", lead, to, ErrLeaderChanged)
		}
		select {
		case <-changed:
			changed = n.LeaderNotify()
		case <-ctx.Done():
			return fmt.Errorf("raft: handing leadership to %x: %w", to, ctx.Err())
		case <-n.stopC:
			return ErrStopped
		case <-n.fatal.done:
			return ErrStopped
		}
	}
}

// Compact tells that the state machine is durable up to upTo, so that the log
// may be trimmed, less what is kept for followers. It writes one record, waits
// for it and then trims: call it from the goroutine that makes checkpoints.
func (n *Node) Compact(upTo Index) error {
	n.compactMu.Lock()
	defer n.compactMu.Unlock()
	n.mu.Lock()
	t, err := n.mu.c.compact(uint64(upTo))
	n.exit(true)
	if err != nil || t == nil {
		return err
	}
	select {
	case <-t.done:
	case <-n.stopC:
		return ErrStopped
	case <-n.fatal.done:
		return n.Err()
	}
	return n.trimLog(t)
}

func (n *Node) trimLog(t *trimWait) error {
	if !t.ok {
		return nil
	}
	if err := n.log.TrimBefore(t.pos); err != nil {
		select {
		case <-n.stopC:
			return ErrStopped // the log is closed, nothing is wrong with it
		default:
		}
		err = fmt.Errorf("raft: trim the log before entry %d: %w", t.index+1, err)
		n.fail(err)
		return err
	}
	return nil
}

// Stop refuses new operations, waits until the accepted ones are finished or
// ctx ends, then stops the goroutines and closes the log. Whoever still waits
// is dropped with ErrStopped. A leader with peers should hand over first.
func (n *Node) Stop(ctx context.Context) error {
	var err error
	n.stopOnce.Do(func() { err = n.stop(ctx) })
	return err
}

func (n *Node) stop(ctx context.Context) error {
	idle := n.q.stop()
	n.rq.stop()
	var late error
	select {
	case <-idle:
	case <-n.fatal.done:
	case <-ctx.Done():
		late = fmt.Errorf("raft: stop: %w", ctx.Err())
	}
	n.mu.Lock()
	c := n.mu.c
	c.finalState()
	n.exit(false)
	close(n.stopC)
	err := n.log.Close()
	n.wg.Wait()
	n.sendMu.Lock() // the last Send has returned
	n.sendBuf = nil
	n.sendMu.Unlock()
	return errors.Join(late, err)
}

// EncodeConfState returns the wire bytes of a raftpb.ConfState.
func EncodeConfState(voters, learners []uint64) []byte {
	b, err := proto.Marshal(&raftpb.ConfState{Voters: voters, Learners: learners})
	if err != nil {
		panic("raft: " + err.Error()) // plain integers always encode
	}
	return b
}

// tickLoop drives the core's clock.
func (n *Node) tickLoop() {
	defer n.wg.Done()
	ticks := n.cfg.Ticks
	if ticks == nil {
		t := time.NewTicker(time.Duration(n.cfg.HeartbeatMillis) * time.Millisecond)
		defer t.Stop()
		ticks = t.C
	}
	for {
		select {
		case <-ticks:
			n.tick()
		case <-n.stopC:
			return
		case <-n.fatal.done:
			return
		}
	}
}

func (n *Node) tick() {
	n.mu.Lock()
	n.mu.c.tick()
	n.exit(true)
}
