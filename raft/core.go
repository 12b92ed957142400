package raft

import (
	"errors"
	"fmt"
	"sync/atomic"

	etcdraft "go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"
)

// core is one member without goroutines, locks and clocks: RawNode, the log in
// memory, and what waits for what. Each method is one step; a step ends with
// drain, so that between steps RawNode has nothing to hand out. The caller
// (Node) guards it with one mutex and afterwards carries out the effects that
// the step collected.
//
// The way of a batch through it:
//
//	proposeWaiting  gate open: one batch → one entry → log record, MsgApp
//	submit          the log starts to write
//	logDurable      the log's position moved: responses → commit
//	takeCommitted   entries with their waiters, for the state machine
//	appliedTo       reads may proceed, memory is given up
type core struct {
	cfg   *Config
	rn    *etcdraft.RawNode
	st    storage
	log   Log
	q     *queue
	reads *readQueue

	// err is the first error of the log; after it nothing is done any more.
	err error

	// What is known of the cluster.
	hs          hardState // newest; commit may be newer than on disk
	lead        leadEvent
	mem         membership
	termStart   uint64         // index of the leader's first entry in its term
	applied     uint64         // by the state machine, flushed
	now         uint64         // ticks
	clock       *atomic.Uint64 // the same, for the queues
	campaignDue bool           // a campaign waits for membership changes to be applied

	// The durable log.
	lastPos, durable Pos
	appends          fifo[appendItem] // wait for durability, in order of position
	gate             gate
	head             []byte    // scratch of one record's head
	parts            [2][]byte // scratch of AppendParts
	held             []*raftpb.Message
	restoring        *raftpb.Snapshot // the state machine takes over a snapshot: appends are held

	vouch    vouch
	doubt    *doubt              // nil: the log is complete, as far as can be known
	doubters map[uint64]*doubter // peers that are in doubt

	// What waits.
	under   underway
	admit   admission
	rounds  readRounds
	fwdSeq  uint64   // of the newest batch forwarded
	prop    proposal // scratch
	stalled bool     // RawNode refused a proposal; until the next tick or leader
	// leaderLost: what was sent to the leader may be lost; until the next tick.
	leaderLost bool

	committed fifo[applyItem] // for the state machine
	fx        effects
}

// appendItem is delivered when the log is durable up to pos.
type appendItem struct {
	pos  Pos
	msgs []*raftpb.Message
	trim *trimWait
	snap *raftpb.Snapshot // the intent is durable: the state machine may begin
}

// trimWait tells the caller of Compact that the log may be trimmed.
type trimWait struct {
	index uint64
	pos   Pos // set before done is closed; valid if ok
	ok    bool
	done  chan struct{}
}

// applyItem is one thing for the state machine: entries, a change of leader or
// a snapshot.
type applyItem struct {
	msg  *raftpb.Message
	lead *leadEvent
	snap *raftpb.Snapshot
}

type leadEvent struct {
	lead, term uint64
	isLeader   bool
}

// effects are what a step leaves to be done without the lock.
type effects struct {
	msgs  []*raftpb.Message
	drops []drop     // from underway
	reads []readDone // from readRounds
	trims []*trimWait
	lead  bool // leader or term changed
	err   error
}

// proposal is a reusable MsgProp. Reuse is safe because RawNode clones the
// entries of a proposal of its own member and keeps nothing of the message;
// TestProposalIsCloned holds it to that.
type proposal struct {
	msg   raftpb.Message
	entry raftpb.Entry
	ents  [1]*raftpb.Entry
	typ   *raftpb.MessageType
}

const (
	// maxSizePerMsg bounds the entries of one MsgApp.
	maxSizePerMsg = 1 << 20
	// maxInflightMsgs and maxInflightBytes bound the MsgApp under way to one
	// follower.
	maxInflightMsgs  = 512
	maxInflightBytes = 64 << 20
)

// newCore recovers the log and builds the member on it.
func newCore(cfg *Config, open OpenLog, q *queue, reads *readQueue, snap Snapshotter) (*core, error) {
	c := &core{cfg: cfg, q: q, reads: reads, clock: q.now}
	c.under.member, c.under.session = cfg.ID, cfg.Session
	c.prop.typ = raftpb.MsgProp.Enum()
	c.st.markEvery = uint64(cfg.MarkEntries)
	rec := recovery{cfg: cfg, w: &c.st.window}
	log, found, err := open(rec.replay)
	if err != nil {
		return nil, err
	}
	c.log = log
	rec.doubtful = found.Doubtful && (rec.sound == 0 || rec.sound <= found.After)
	if err := c.start(&rec, snap); err != nil {
		_ = log.Close()
		return nil, err
	}
	return c, nil
}

func (c *core) start(rec *recovery, snap Snapshotter) error {
	applied, conf, err := rec.finish()
	if err != nil {
		return err
	}
	c.gate.depth = c.cfg.QueueDepth
	c.hs, c.applied = rec.hs, applied.index
	c.st.hs, c.st.conf = rec.hs, conf
	if snap != nil {
		c.st.snap = func() (*raftpb.Snapshot, bool) {
			return takeSnapshot(snap, max(c.st.prev.index, c.mem.index))
		}
	}
	c.mem.set(c.cfg.ID, conf, applied.index, c.hs.commit)
	if rec.needBase {
		c.appendBase(c.st.trim, rec.bootConf)
	}
	if c.err != nil {
		return c.err
	}
	if c.cfg.Replaced {
		if err := c.awaitLog(); err != nil {
			return err
		}
	}
	if c.cfg.StandAlone {
		if err := c.standAlone(); err != nil {
			return err
		}
	}
	c.beginDoubt(rec.doubtful)
	if c.err != nil {
		return c.err
	}
	c.rn, err = etcdraft.NewRawNode(&etcdraft.Config{
		ID:                        c.cfg.ID,
		ElectionTick:              c.cfg.electionTicks(),
		HeartbeatTick:             1,
		Storage:                   &c.st,
		Applied:                   applied.index,
		AsyncStorageWrites:        true,
		MaxSizePerMsg:             maxSizePerMsg,
		MaxCommittedSizePerReady:  noLimit,
		MaxUncommittedEntriesSize: 2 * uint64(c.cfg.MaxPendingBytes),
		MaxInflightMsgs:           maxInflightMsgs,
		MaxInflightBytes:          maxInflightBytes,
		CheckQuorum:               true,
		PreVote:                   true,
		Logger:                    newRaftLogger(c.cfg.Logger),
	})
	if err != nil {
		return fmt.Errorf("raft: %w", err)
	}
	return nil
}

// noLimit: committed entries are in memory anyway, so handing them all out
// costs nothing, and RawNode never pauses. Node cuts the groups.
const noLimit = 1<<63 - 1

// takeSnapshot asks for a state that a peer can go on from: after the entries
// that are gone, and with a membership that the peer is in.
func takeSnapshot(s Snapshotter, atLeast uint64) (*raftpb.Snapshot, bool) {
	index, term, conf, ok := s.Snapshot(atLeast)
	if !ok || index < atLeast {
		return nil, false
	}
	cs := &raftpb.ConfState{}
	if err := proto.Unmarshal(conf, cs); err != nil {
		panic(fmt.Sprintf("raft: membership of the snapshot at index %d: %v", index, err))
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{ConfState: cs, Index: &index, Term: &term}}, true
}

// campaign starts an election at once. RawNode refuses while a committed
// membership change is not applied; then appliedTo tries again.
func (c *core) campaign() {
	if c.err != nil {
		return
	}
	c.drain()
	if c.doubt != nil && !c.countsDoubt() {
		return
	}
	_ = c.rn.Campaign() // refused when not a voter: nothing to do then
	c.campaignDue = c.mem.voter && c.rn.BasicStatus().RaftState == etcdraft.StateFollower
	c.drain()
}

// tick is one heartbeat interval.
func (c *core) tick() {
	if c.err != nil {
		return
	}
	c.now = c.clock.Add(1)
	c.stalled = false
	c.rn.Tick()
	c.drain()
	c.watchLog()
	c.handOver()
	c.expireProposals()
	c.forwardAgain()
	c.expireReads()
	c.askLeader()
	c.leaderLost = false
}

// watchLog ends a member whose log does not answer any more: nobody knows what
// will become of the write.
func (c *core) watchLog() {
	if c.cfg.LogStallMillis > 0 && c.gate.waited(c.now) > c.cfg.ticks(c.cfg.LogStallMillis) {
		c.fail(fmt.Errorf("a write has not ended for %d ms", c.cfg.LogStallMillis))
	}
}

// handOver gives leadership to the voter that is furthest ahead, in two cases.
// The leader's disk is slower than an election: the others can do without it.
// Or the leader is no voter any more: it does not just step down, because the
// others may not know yet that its removal is committed and could not elect
// anybody without it.
func (c *core) handOver() {
	slow := c.gate.waited(c.now) > uint64(c.cfg.electionTicks())
	if c.lead.isLeader && c.err == nil && (slow || !c.mem.voter) {
		c.transferAway()
	}
}

// transferAway starts to hand leadership to the voter that is furthest ahead
// among those that were heard lately, or among all if none was. It returns 0 if
// there is none or this member does not lead.
func (c *core) transferAway() (to uint64) {
	if c.err != nil || !c.lead.isLeader {
		return 0
	}
	var match uint64
	active := false
	c.rn.WithProgress(func(id uint64, typ etcdraft.ProgressType, pr tracker.Progress) {
		if typ != etcdraft.ProgressTypePeer || id == c.cfg.ID || active && !pr.RecentActive || c.doubts(id) {
			return
		}
		if to == 0 || pr.RecentActive && !active || pr.Match >= match {
			to, match, active = id, pr.Match, pr.RecentActive
		}
	})
	if to != 0 {
		c.rn.TransferLeader(to)
		c.drain()
	}
	return to
}

// leavesFirst: a leader does not propose that it ceases to be a voter. It hands
// over, and the change goes to the next leader. Else, if it were one of two and
// crashed when the change is committed and the other does not know it yet, the
// other would need the vote of a member that has the longer log and no vote.
func (c *core) leavesFirst(cc *raftpb.ConfChangeV2) bool {
	for _, ch := range cc.GetChanges() {
		t := ch.GetType()
		if ch.GetNodeId() == c.cfg.ID && (t == raftpb.ConfChangeRemoveNode || t == raftpb.ConfChangeAddLearnerNode) {
			if len(c.mem.conf.GetVoters()) > 1 {
				c.transferAway()
				return true
			}
		}
	}
	return false
}

// stepMessage takes a message from a peer.
func (c *core) stepMessage(m *raftpb.Message) error {
	if c.err != nil {
		return ErrStopped
	}
	if etcdraft.IsLocalMsg(m.GetType()) || m.GetTo() != c.cfg.ID {
		return fmt.Errorf("raft: %v for %x is no message from a peer", m.GetType(), m.GetTo())
	}
	if typ := m.GetType(); (typ == raftpb.MsgApp || typ == raftpb.MsgProp) && len(m.GetEntries()) > 0 && !c.gate.takes(entriesBytes(m)) {
		return errBacklog
	}
	switch m.GetType() {
	case raftpb.MsgProp:
		if !c.lead.isLeader || !c.admit.admit(m, c.hs.term) || c.leavesFirst(changeIn(m)) {
			return nil
		}
	case raftpb.MsgReadIndex:
		// A single voter answers from its commit index without having
		// committed in its term, which after a restart may be too low.
		if !c.lead.isLeader || c.hs.commit < c.termStart {
			return nil
		}
	case raftpb.MsgSnap:
		if c.st.snap == nil {
			return fmt.Errorf("raft: snapshot from %x ignored: the state machine cannot take it", m.GetFrom())
		}
	}
	if isQuestion(m) {
		c.answerDoubt(m)
		return nil
	}
	if isDoubtful(m) && !c.countsDoubt() {
		return errInDoubt
	}
	if c.doubt != nil {
		if m = c.screen(m); m == nil {
			return errInDoubt
		}
	}
	err := c.rn.Step(m)
	if err != nil && m.GetType() == raftpb.MsgProp {
		// Leadership is being handed over, or too much is uncommitted: the batch
		// will come again.
		c.admit.undo(m)
	}
	c.drain()
	if m.GetType() == raftpb.MsgApp {
		c.noteAnswer(m)
	}
	return err
}

// errBacklog refuses entries of a peer while the log is not written; they are sent
// again, as if the network had lost them.
var errBacklog = errors.New("raft: the log's writes are too far behind")

// errInDoubt refuses to take part in an election.
var errInDoubt = errors.New("raft: this member may have lost entries, it does not vote")

func entriesBytes(m *raftpb.Message) (n int) {
	for _, e := range m.GetEntries() {
		n += entryMemBytes(e)
	}
	return n
}

// logDurable tells that the log is durable up to pos.
func (c *core) logDurable(pos Pos) {
	if c.err != nil || pos <= c.durable {
		return
	}
	c.durable = pos
	c.gate.durable(pos)
	c.vouchFor()
	if c.deliver() {
		c.drain()
	}
}

// submit starts the write of what was appended, unless as many writes are in
// flight as the queue depth allows: then the next completion does it.
func (c *core) submit() {
	if c.err != nil || !c.gate.maySubmit() {
		return
	}
	ops := c.gate.submit(c.lastPos, c.now)
	if err := c.log.Submit(ops, true); err != nil {
		c.fail(err)
	}
}

func (c *core) fail(err error) {
	if c.err == nil {
		c.err = fmt.Errorf("raft: log: %w", err)
	}
}

// inlineReads: a member without any other may answer reads from its applied
// state without asking anybody, once it has committed and applied in its term:
// whatever was acknowledged was applied here first. With a learner that is not
// so, for it can be the first to apply; nor for what was committed before the
// others left.
func (c *core) inlineReads() bool {
	return c.mem.alone && c.lead.isLeader && c.err == nil && c.applied >= max(c.termStart, c.mem.aloneFrom)
}

// confChanged finishes the membership change at index: cc is what was
// committed, state what the state machine made of it (nil: refused).
func (c *core) confChanged(index uint64, cc *raftpb.ConfChangeV2, state []byte) {
	if state == nil || c.err != nil || c.restoring != nil {
		// With a snapshot on its way RawNode is at the snapshot's membership
		// already, which is later than this change.
		return
	}
	want := &raftpb.ConfState{}
	if err := proto.Unmarshal(state, want); err != nil {
		panic(fmt.Sprintf("raft: membership from the state machine: %v", err))
	}
	got := c.rn.ApplyConfChange(cc)
	if err := got.Equivalent(want); err != nil {
		panic(fmt.Sprintf("raft: the state machine and raft disagree about the membership: %v", err))
	}
	c.mem.set(c.cfg.ID, got, index, c.hs.commit)
	// A removed member may be gone for good as soon as it hears of the commit.
	// A restart that still counts it among the voters could need its vote, so
	// here the commit index is written at once.
	c.head = appendState(c.head[:0], c.hs)
	c.appendRecord(c.head, nil)
	c.drain()
}

// reportApplied tells RawNode that the first n entries of g are applied. After
// a membership change that must be before its waiter is answered, or the next
// change would be refused. It needs no drain: without a bound on what is being
// applied, and without joint membership, it leaves nothing to hand out.
func (c *core) reportApplied(g *group, n int) {
	if c.err != nil || n == g.reported {
		return
	}
	resp := g.msg.GetResponses()[0]
	resp.Entries = g.ents[g.reported:n]
	g.reported = n
	_ = c.rn.Step(resp) // responses to oneself cannot fail
}

// appliedTo tells that the state machine has applied and flushed up to index.
func (c *core) appliedTo(index uint64) {
	if c.err != nil {
		return
	}
	c.applied = index
	keepEntries, keepBytes := c.cfg.CatchupEntries, c.cfg.CatchupBytes
	if c.mem.alone {
		keepEntries, keepBytes = 0, 0
	}
	c.st.forget(index, keepEntries, keepBytes)
	c.rounds.ready(index)
	if c.campaignDue {
		c.campaign()
	}
}

// compact gives up the log up to upTo, less what is kept for followers. The
// caller waits for the result and then trims the log; nil: nothing to do.
func (c *core) compact(upTo uint64) (*trimWait, error) {
	if c.err != nil {
		return nil, ErrStopped
	}
	if c.doubt != nil {
		return nil, nil // the mark of the cut must stay
	}
	if upTo > c.applied {
		return nil, fmt.Errorf("raft: compact at %d beyond the applied index %d", upTo, c.applied)
	}
	at := min(upTo, c.st.prev.index)
	term, known := c.st.lookup(at)
	if !known || at <= c.st.trim.index {
		return nil, nil
	}
	c.appendBase(entryID{at, term}, nil)
	t := &trimWait{index: at, done: make(chan struct{})}
	c.appends.push(appendItem{pos: c.lastPos, trim: t})
	return t, nil
}

// finalState ends the core: it writes the commit index down, so that a restart
// need not wait for the leader to learn it, and does nothing any more.
func (c *core) finalState() {
	if c.err != nil {
		return
	}
	c.head = appendState(c.head[:0], c.hs)
	c.appendRecord(c.head, nil)
	c.submit()
	if c.err == nil {
		c.err = ErrStopped
	}
}
