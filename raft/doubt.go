package raft

import (
	"bytes"
	"encoding/binary"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
)

// A member is in doubt when the end of its log was cut because it was damaged: it
// may have acknowledged what was there. doc.go has the rule. The member asks its
// leader for what follows the part of its log that is known to be the leader's too;
// the leader answers from its own log, whatever its RawNode believes this follower
// to have, and says where its log ends.
//
//	MsgAppResp  rejecting, context: question | session; index: matched
//	MsgApp      from matched on, context: answer | session | end of the leader's log
//	MsgSnap     if that is not in the leader's memory any more
//
// Both pass by RawNode at the leader; at the member the answer is an append like
// any other.
type doubt struct {
	term    uint64 // the following hold in this term
	matched uint64 // up to where the log is the leader's
	target  uint64 // of which the leader has told its end, 0: it has not yet
}

// at forgets what was known of another term's leader.
func (d *doubt) at(term uint64) {
	if d.term != term {
		*d = doubt{term: term}
	}
}

var (
	doubtQuestion = []byte("doubt?")
	doubtAnswer   = []byte("doubt!")
	doubtVote     = []byte("doubt")
)

// maxDoubtVoters: a member in doubt takes part in elections where nobody is elected
// without everybody. Its idea of the membership may be as old as its log, so its
// requests and grants say that it is in doubt, and the other one looks whether that
// is so.
const maxDoubtVoters = 2

// countsDoubt tells whether this member may be elected by, or elect, one in doubt. A
// change of the membership that is in its log and not applied may have been
// committed, so that there are others of whom it does not know.
func (c *core) countsDoubt() bool {
	if len(c.mem.conf.GetVoters()) > maxDoubtVoters {
		return false
	}
	for i := c.st.ents.len() - 1; i >= 0; i-- {
		e := *c.st.ents.at(i)
		if e.GetIndex() <= c.applied {
			break
		}
		if e.GetType() == raftpb.EntryConfChangeV2 && c.changesVoters(e) {
			return false
		}
	}
	return true
}

// changesVoters tells whether a membership change is more than a new learner.
func (c *core) changesVoters(e *raftpb.Entry) bool {
	_, cc, _, err := cutConfChange(e.GetData())
	if err != nil {
		return true
	}
	for _, ch := range cc.GetChanges() {
		if ch.GetType() != raftpb.ConfChangeAddLearnerNode || slices.Contains(c.mem.conf.GetVoters(), ch.GetNodeId()) {
			return true
		}
	}
	return false
}

// isDoubtful tells whether a message is the part of a member in doubt in an election.
func isDoubtful(m *raftpb.Message) bool {
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		return bytes.Equal(m.GetContext(), doubtVote)
	}
	return false
}

// screen looks at a message from a peer while this member is in doubt. It returns
// what RawNode is to be given, nil: nothing.
func (c *core) screen(m *raftpb.Message) *raftpb.Message {
	switch m.GetType() {
	case raftpb.MsgTimeoutNow:
		return nil
	case raftpb.MsgVote, raftpb.MsgPreVote:
		if !c.countsDoubt() {
			return nil
		}
	case raftpb.MsgHeartbeat:
		// The leader believes that this member has what is lost, and RawNode
		// panics at a commit index that it does not have.
		if last := c.st.lastIndex(); m.GetCommit() > last {
			term := m.GetTerm()
			return &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: m.From, To: m.To, Term: &term, Commit: &last, Context: m.Context}
		}
	}
	return m
}

// withheld are messages that a member in doubt does not send: its part in elections
// where that does not count, and that it lacks what the leader believes it to have,
// which RawNode would answer with the same append again, and again.
func (c *core) withheld(m *raftpb.Message) bool {
	if c.doubt == nil {
		return false
	}
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		m.Context = doubtVote
		return !c.countsDoubt()
	case raftpb.MsgAppResp:
		return m.GetReject()
	}
	return false
}

// askLeader asks for what comes after the part of the log that is the leader's too.
// Committed entries always are.
func (c *core) askLeader() {
	if c.doubt == nil || c.lead.lead == 0 || c.lead.isLeader || c.restoring != nil || c.err != nil {
		return
	}
	c.doubt.at(c.hs.term)
	from, to, term, index := c.cfg.ID, c.lead.lead, c.hs.term, max(c.doubt.matched, min(c.hs.commit, c.st.lastIndex()))
	c.fx.msgs = append(c.fx.msgs, &raftpb.Message{
		Type: raftpb.MsgAppResp.Enum(), From: &from, To: &to, Term: &term, Index: &index, Reject: new(true),
		Context: binary.LittleEndian.AppendUint64(bytes.Clone(doubtQuestion), c.cfg.Session),
	})
}

// isQuestion tells a question from RawNode's messages.
func isQuestion(m *raftpb.Message) bool {
	return m.GetType() == raftpb.MsgAppResp && len(m.GetContext()) == len(doubtQuestion)+8 && bytes.HasPrefix(m.GetContext(), doubtQuestion)
}

// answerDoubt sends a member in doubt what it asks for.
func (c *core) answerDoubt(q *raftpb.Message) {
	if c.doubters == nil {
		c.doubters = map[uint64]*doubter{}
	}
	d := c.doubters[q.GetFrom()]
	if d == nil {
		d = &doubter{}
		c.doubters[q.GetFrom()] = d
	}
	d.heard = c.now
	if !c.lead.isLeader || q.GetTerm() != c.hs.term {
		return
	}
	from, to, term, prev, commit := c.cfg.ID, q.GetFrom(), c.hs.term, q.GetIndex(), c.hs.commit
	last := c.st.lastIndex()
	switch prevTerm, err := c.st.Term(prev); {
	case prev > last:
	case err != nil:
		c.offerSnapshot(to, d)
	default:
		var ents []*raftpb.Entry
		if prev < last {
			ents, _ = c.st.Entries(prev+1, last+1, maxSizePerMsg) // prev is in memory, so is the rest
		}
		ctx := append(bytes.Clone(doubtAnswer), q.GetContext()[len(doubtQuestion):]...)
		c.fx.msgs = append(c.fx.msgs, &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), From: &from, To: &to, Term: &term, Index: &prev, LogTerm: &prevTerm,
			Entries: ents, Commit: &commit, Context: binary.LittleEndian.AppendUint64(ctx, last),
		})
	}
}

// doubter is what a member knows of another one that is in doubt.
type doubter struct {
	heard    uint64 // tick
	snapshot bool   // one is under way to it
}

// offerSnapshot sends a snapshot, one at a time: each is a transfer.
func (c *core) offerSnapshot(to uint64, d *doubter) {
	if d.snapshot {
		return
	}
	sn, err := c.st.Snapshot()
	if err != nil {
		return // it is being made; the member asks again
	}
	d.snapshot = true
	from, term := c.cfg.ID, c.hs.term
	c.fx.msgs = append(c.fx.msgs, &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: &from, To: &to, Term: &term, Snapshot: sn})
}

// snapshotEnded notes that the transfer of a snapshot has come to an end.
func (c *core) snapshotEnded(id uint64) {
	if d := c.doubters[id]; d != nil {
		d.snapshot = false
	}
}

// doubts tells whether a peer has said lately that it is in doubt.
func (c *core) doubts(id uint64) bool {
	d := c.doubters[id]
	return d != nil && c.now-d.heard < uint64(c.cfg.electionTicks())
}

// noteAnswer takes the leader's word for where its log ends. RawNode has taken the
// message before, so that term and leader are the message's if it was valid.
func (c *core) noteAnswer(m *raftpb.Message) {
	ctx := m.GetContext()
	if c.doubt == nil || len(ctx) != len(doubtAnswer)+16 || !bytes.HasPrefix(ctx, doubtAnswer) {
		return
	}
	ctx = ctx[len(doubtAnswer):]
	if u64at(ctx, 0) != c.cfg.Session || m.GetTerm() != c.hs.term || m.GetFrom() != c.lead.lead {
		return
	}
	c.doubt.at(c.hs.term)
	if c.doubt.target == 0 { // the first answer will do, and later ones move on
		c.doubt.target = max(u64at(ctx, 1), 1)
	}
	if c.doubt.matched >= c.doubt.target {
		c.endDoubt("nothing was lost that the leader has")
		c.drain()
	}
}

// noteMatch looks at an acknowledgement that leaves: up to its index the log is the
// leader's, durably. Beyond the end that the leader has told nothing is in doubt any
// more.
func (c *core) noteMatch(m *raftpb.Message) {
	d := c.doubt
	if d == nil || m.GetType() != raftpb.MsgAppResp || m.GetReject() || m.GetTerm() != c.hs.term || m.GetTo() != c.lead.lead {
		return
	}
	d.at(c.hs.term)
	before := d.matched
	d.matched = max(d.matched, m.GetIndex())
	switch {
	case d.target > 0 && d.matched >= d.target:
		c.endDoubt("the leader has sent again what was lost")
	case d.matched > before:
		c.askLeader()
	}
}

// endDoubt notes that nothing is missing any more.
func (c *core) endDoubt(why string) {
	c.doubt = nil
	c.head = append(c.head[:0], recSound)
	c.appendRecord(c.head, nil)
	c.cfg.Logger.Info("the log is complete again; this member takes part in elections", zap.String("reason", why), zap.Uint64("last-index", c.st.lastIndex()))
}

// vouch makes sure that term and vote cannot be lost with the newest batch of the
// log: what depends on them waits until a second copy is durable. The second copy is
// written when the first one is durable, so its batch tells that.
type vouch struct {
	first, last Pos // of the records that are not vouched for yet; 0: none
	copied      Pos // the copy; 0: not written yet
}

// holds tells whether something at pos has to wait.
func (v *vouch) holds(pos Pos) bool { return v.first != 0 && pos >= v.first }

// noteState says that term or vote were written at pos.
func (v *vouch) noteState(pos Pos) {
	if v.first == 0 {
		v.first = pos
	}
	v.last, v.copied = pos, 0
}

// vouchFor writes the second copy when its time has come.
func (c *core) vouchFor() {
	v := &c.vouch
	switch {
	case v.first == 0 || c.err != nil:
	case v.copied == 0 && c.durable >= v.last:
		c.head = appendState(c.head[:0], c.hs)
		v.copied = c.appendRecord(c.head, nil)
	case v.copied != 0 && c.durable >= v.copied:
		*v = vouch{}
	}
}

// beginDoubt is called once, when the log has been recovered. A member that has
// nobody to ask has been told to go on with what it has.
func (c *core) beginDoubt(doubtful bool) {
	if !doubtful {
		return
	}
	if c.mem.single || c.cfg.StandAlone {
		c.endDoubt("there is no other voter")
		return
	}
	c.doubt = &doubt{}
	c.cfg.Logger.Warn("the end of the log was damaged and is cut off; until the leader has sent it again this member does not vote",
		zap.Uint64("last-index", c.st.lastIndex()), zap.Uint64("commit-index", c.hs.commit))
}
