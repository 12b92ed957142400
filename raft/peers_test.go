package raft

import (
	"bytes"
	"errors"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// peers is a member of three whose peers are played by the test.
type peers struct {
	t   *testing.T
	n   *Node
	st  *Stepper
	log *fakeLog
	sm  *model
	out []*raftpb.Message
}

func (p *peers) Send(msgs []*raftpb.Message) { p.out = append(p.out, msgs...) }

func newPeers(t *testing.T, voters, learners []uint64) *peers {
	p := &peers{t: t, log: newFakeLog(false), sm: newModel(voters...)}
	cfg := singleConfig()
	cfg.ConfState, cfg.Transport, cfg.Session = EncodeConfState(voters, learners), p, 77
	var err error
	if p.n, p.st, err = OpenManual(cfg, p.log.open, p.sm); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *peers) settle() { settleManualFake(p.t, p.n, p.st, p.log) }

// take returns and forgets the messages of one type.
func (p *peers) take(typ raftpb.MessageType) (ms []*raftpb.Message) {
	for _, m := range p.out {
		if m.GetType() == typ {
			ms = append(ms, m)
		}
	}
	p.out = nil
	return ms
}

func (p *peers) step(m *raftpb.Message) {
	p.t.Helper()
	m.To = new(uint64(1))
	if err := p.n.Step(m); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peers) heartbeat(from, term uint64) {
	p.t.Helper()
	p.step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &from, Term: &term})
}

func (p *peers) confirm(q *raftpb.Message, from, term, index uint64) {
	p.t.Helper()
	p.step(&raftpb.Message{Type: raftpb.MsgReadIndexResp.Enum(), From: &from, Term: &term, Index: &index, Entries: q.GetEntries()})
}

// TestReadContexts: a question that is put again has a context of its own, and
// an answer to an earlier one counts for nothing.
func TestReadContexts(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.heartbeat(2, 5)
	r := newReader()
	if p.n.ReadIndex(r) {
		t.Fatal("a follower reads at once")
	}
	first := p.take(raftpb.MsgReadIndex)
	if len(first) != 1 || first[0].GetTo() != 2 {
		t.Fatalf("asked %v", first)
	}
	for range 5 {
		p.st.Tick()
	}
	second := p.take(raftpb.MsgReadIndex)
	if len(second) != 1 || bytes.Equal(second[0].GetEntries()[0].GetData(), first[0].GetEntries()[0].GetData()) {
		t.Fatalf("asked again %v", second)
	}
	p.confirm(first[0], 2, 5, 1)
	p.settle()
	if len(r.done) != 0 {
		t.Fatal("the late answer to the first question was taken")
	}
	p.confirm(second[0], 2, 5, 1)
	p.confirm(second[0], 2, 5, 1)
	p.settle()
	if len(r.done) != 1 {
		t.Fatalf("told %d times", len(r.done))
	}
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

func TestReadsWaitForTheApplied(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.heartbeat(2, 5)
	r := newReader()
	p.n.ReadIndex(r)
	p.confirm(p.take(raftpb.MsgReadIndex)[0], 2, 5, 2)
	p.settle()
	if len(r.done) != 0 {
		t.Fatal("read before the index is applied")
	}
	e := testEntry(2, 5, "\x01\x02op")
	p.step(&raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), Term: new(uint64(5)), Index: new(uint64(1)), LogTerm: new(uint64(1)),
		Commit: new(uint64(2)), Entries: []*raftpb.Entry{e},
	})
	p.settle()
	if err := <-r.done; err != nil || len(p.sm.ops) != 1 {
		t.Errorf("%v with %d operations", err, len(p.sm.ops))
	}
}

// TestReadsFollowTheLeader: a question that a leader did not answer goes to the
// next one; without a leader for two elections the reader is told.
func TestReadsFollowTheLeader(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.heartbeat(2, 5)
	r := newReader()
	p.n.ReadIndex(r)
	first := p.take(raftpb.MsgReadIndex)
	p.heartbeat(3, 6)
	second := p.take(raftpb.MsgReadIndex)
	if len(second) != 1 || second[0].GetTo() != 3 || bytes.Equal(second[0].GetEntries()[0].GetData(), first[0].GetEntries()[0].GetData()) {
		t.Fatalf("asked %v", second)
	}
	p.confirm(first[0], 3, 6, 1)
	p.settle()
	if len(r.done) != 0 {
		t.Fatal("the answer to the first question was taken")
	}
	p.confirm(second[0], 3, 6, 1)
	p.settle()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
	cutOff := newReader()
	p.n.ReadIndex(cutOff)
	for range 60 {
		p.st.Tick()
		p.settle()
	}
	if len(cutOff.done) != 1 {
		t.Fatal("not told that there is no leader")
	}
	if err := <-cutOff.done; !errors.Is(err, ErrNoLeader) {
		t.Error(err)
	}
}

// TestReadsOfADeposedLeaderFail: another member may be able to answer.
func TestReadsOfADeposedLeaderFail(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.lead()
	r := newReader()
	p.n.ReadIndex(r)
	p.heartbeat(3, 6)
	if err := <-r.done; !errors.Is(err, ErrLeaderChanged) {
		t.Error(err)
	}
}

// TestPassedByIsProposedAgain: a forwarded batch that no leader has taken up is
// forwarded to the next one as soon as that has committed.
func TestPassedByIsProposedAgain(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.heartbeat(2, 5)
	w := newWaiter("a")
	if err := p.n.Propose([]byte(w.op), w); err != nil {
		t.Fatal(err)
	}
	lost := p.take(raftpb.MsgProp)
	e2 := testEntry(2, 6, "")
	p.step(&raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: new(uint64(3)), Term: new(uint64(6)), Index: new(uint64(1)), LogTerm: new(uint64(1)),
		Commit: new(uint64(2)), Entries: []*raftpb.Entry{e2},
	})
	p.settle()
	again := p.take(raftpb.MsgProp)
	if len(again) != 1 || again[0].GetTo() != 3 || bytes.Equal(again[0].GetEntries()[0].GetData(), lost[0].GetEntries()[0].GetData()) {
		t.Fatalf("forwarded %v", again)
	}
	p.step(&raftpb.Message{
		Type: raftpb.MsgApp.Enum(), From: new(uint64(3)), Term: new(uint64(6)), Index: new(uint64(2)), LogTerm: new(uint64(6)),
		Commit: new(uint64(3)), Entries: []*raftpb.Entry{testEntry(3, 6, string(again[0].GetEntries()[0].GetData()))},
	})
	p.settle()
	if got := w.result(); got != "applied" {
		t.Errorf("%q", got)
	}
}

// TestLearnerReadsWaitForTheTerm: a single voter's commit index may be too old
// until it has committed in its term, also for others that ask.
func TestLearnerReadsWaitForTheTerm(t *testing.T) {
	p := newPeers(t, []uint64{1}, []uint64{2})
	ask := func() []*raftpb.Message {
		p.out = nil
		p.step(&raftpb.Message{Type: raftpb.MsgReadIndex.Enum(), From: new(uint64(2)), Entries: []*raftpb.Entry{{Data: []byte("ctx")}}})
		return p.take(raftpb.MsgReadIndexResp)
	}
	for !p.n.Status().IsLeader {
		p.log.sync()
		if err := p.st.Complete(); err != nil {
			t.Fatal(err)
		}
	}
	if got := ask(); len(got) != 0 {
		t.Errorf("answered %v", got)
	}
	p.settle()
	if got := ask(); len(got) != 1 || got[0].GetIndex() != 2 {
		t.Errorf("answered %v", got)
	}
}

// TestVotesWaitForTheirOwnVote: nobody is asked for a vote before this member's
// own term and vote are durable.
func TestVotesWaitForTheirOwnVote(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.settle()
	p.n.Campaign()
	p.log.sync()
	if pre := p.take(raftpb.MsgPreVote); len(pre) != 2 {
		t.Fatalf("pre-votes %v", pre)
	}
	p.step(&raftpb.Message{Type: raftpb.MsgPreVoteResp.Enum(), From: new(uint64(2)), Term: new(uint64(2))})
	if v := p.take(raftpb.MsgVote); len(v) != 0 {
		t.Fatalf("asked before the write: %v", v)
	}
	p.settle()
	if v := p.take(raftpb.MsgVote); len(v) != 2 || v[0].GetTerm() != 2 {
		t.Fatalf("asked %v", v)
	}
	if p.n.Status().IsLeader {
		t.Error("leads without votes")
	}
}

// TestForwarded: a follower's proposals go to the leader and are recognised
// when they come back, also doubly or never.
func TestForwarded(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.heartbeat(2, 5)
	ws := []*fakeWaiter{newWaiter("a"), newWaiter("b")}
	for _, w := range ws {
		if err := p.n.Propose([]byte(w.op), w); err != nil {
			t.Fatal(err)
		}
	}
	sent := p.take(raftpb.MsgProp)
	if len(sent) == 0 || sent[0].GetTo() != 2 {
		t.Fatalf("sent %v", sent)
	}
	data := sent[0].GetEntries()[0].GetData()
	e2, e3 := testEntry(2, 5, string(data)), testEntry(3, 6, "")
	app := func(term, prev, prevTerm uint64, e *raftpb.Entry) {
		p.step(&raftpb.Message{
			Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), Term: &term, Index: &prev, LogTerm: &prevTerm,
			Commit: new(e.GetIndex()), Entries: []*raftpb.Entry{e},
		})
		p.settle()
	}
	app(5, 1, 1, e2)
	if got := ws[0].result(); got != "applied" {
		t.Errorf("first: %q", got)
	}
	if got := ws[1].result(); got != "" && got != "applied" {
		t.Errorf("second: %q", got)
	}
	app(6, 2, 5, e3)
	for range 200 {
		p.st.Tick()
	}
	p.settle()
	if ws[1].result() == "" {
		t.Error("the second was never told")
	}
	if n := p.n.Status().PendingOps; n != 0 {
		t.Errorf("%d pending", n)
	}
}

// lead makes the member leader of term 2, with member 2 caught up.
func (p *peers) lead() {
	p.t.Helper()
	p.settle()
	p.n.Campaign()
	p.step(&raftpb.Message{Type: raftpb.MsgPreVoteResp.Enum(), From: new(uint64(2)), Term: new(uint64(2))})
	p.settle()
	p.step(&raftpb.Message{Type: raftpb.MsgVoteResp.Enum(), From: new(uint64(2)), Term: new(uint64(2))})
	p.settle()
	p.step(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(uint64(2)), Term: new(uint64(2)), Index: new(uint64(2))})
	p.settle()
	if s := p.n.Status(); !s.IsLeader || s.Applied != 2 {
		p.t.Fatalf("does not lead: %+v", s)
	}
	p.out = nil
}

// TestLeaderLeaves: a leader that is to be removed hands over, and the change
// goes to the next leader.
func TestLeaderLeaves(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.lead()
	cc, err := proto.Marshal(&raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(1))}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.n.ProposeConfChange(cc, newWaiter("leave")); err != nil {
		t.Fatal(err)
	}
	if m := p.take(raftpb.MsgTimeoutNow); len(m) != 1 || m[0].GetTo() != 2 {
		t.Fatalf("hands over %v", m)
	}
	if got := p.n.Status().LastIndex; got != 2 {
		t.Errorf("proposed it itself, last entry %d", got)
	}
	p.heartbeat(2, 3)
	if m := p.take(raftpb.MsgProp); len(m) != 1 || m[0].GetTo() != 2 {
		t.Errorf("forwards %v", m)
	}
}

// TestHungLog: a leader with a hung disk hands over, then gives up.
func TestHungLog(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.lead()
	if err := p.n.Propose([]byte("op"), newWaiter("op")); err != nil { // its write hangs
		t.Fatal(err)
	}
	p.step(&raftpb.Message{Type: raftpb.MsgAppResp.Enum(), From: new(uint64(2)), Term: new(uint64(2)), Index: new(uint64(3))})
	p.out = nil
	alive := func() {
		p.st.Tick()
		for _, id := range []uint64{2, 3} {
			p.step(&raftpb.Message{Type: raftpb.MsgHeartbeatResp.Enum(), From: &id, Term: new(uint64(2))})
		}
	}
	for range 12 {
		alive()
	}
	if m := p.take(raftpb.MsgTimeoutNow); len(m) == 0 || m[0].GetTo() != 2 {
		t.Errorf("hands over %v", m)
	}
	for range 300 {
		if p.n.Err() != nil {
			break
		}
		p.st.Tick()
	}
	if p.n.Err() == nil {
		t.Error("goes on although its log is hung")
	}
}

// TestHungFollower: a follower whose disk hangs answers heartbeats, takes what its
// log has room for, and never waits for it; when the disk is back it has the rest
// sent again. A leader likewise goes on sending heartbeats.
func TestHungFollower(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.settle()
	p.heartbeat(2, 5)
	p.settle()
	term, index, refused := uint64(5), uint64(2), 0
	prev, prevTerm := uint64(1), uint64(1)
	for range 40 {
		e := &raftpb.Entry{Term: &term, Index: new(index), Data: append([]byte{frameLocal}, make([]byte, 512<<10)...)}
		m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: new(uint64(2)), To: new(uint64(1)), Term: &term, Index: new(prev), LogTerm: new(prevTerm), Entries: []*raftpb.Entry{e}}
		if err := p.n.Step(m); errors.Is(err, errBacklog) {
			refused++
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		prev, prevTerm, index = index, term, index+1
	}
	if held := prev - 1; refused == 0 || held*(512<<10) > maxBacklog {
		t.Errorf("%d entries of 512 KiB taken, %d refused", held, refused)
	}
	p.out = nil
	p.heartbeat(2, 5)
	if m := p.take(raftpb.MsgHeartbeatResp); len(m) != 1 {
		t.Errorf("answers a heartbeat with %v", m)
	}
	for range 100 { // 10 s
		p.st.Tick()
		p.heartbeat(2, 5)
	}
	p.out = nil
	p.settle()
	if m := p.take(raftpb.MsgAppResp); len(m) == 0 || m[len(m)-1].GetIndex() != prev {
		t.Errorf("acknowledges %v, has %d", m, prev)
	}
}

// TestLostForwardIsRepeated: what is forwarded and shows no effect is sent
// again, at once if the leader could not be reached, under the same identity.
func TestLostForwardIsRepeated(t *testing.T) {
	p := newPeers(t, []uint64{1, 2, 3}, nil)
	p.heartbeat(2, 5)
	w := newWaiter("a")
	if err := p.n.Propose([]byte(w.op), w); err != nil {
		t.Fatal(err)
	}
	first := p.take(raftpb.MsgProp)
	p.n.ReportUnreachable(3)
	p.st.Tick()
	if again := p.take(raftpb.MsgProp); len(again) != 0 {
		t.Fatalf("repeated without a reason: %v", again)
	}
	p.n.ReportUnreachable(2)
	p.st.Tick()
	again := p.take(raftpb.MsgProp)
	if len(again) != 1 || again[0].GetTo() != 2 || !bytes.Equal(again[0].GetEntries()[0].GetData(), first[0].GetEntries()[0].GetData()) {
		t.Fatalf("repeated %v", again)
	}
	repeats := 0
	for range 25 {
		p.st.Tick()
		p.heartbeat(2, 5)
		repeats += len(p.take(raftpb.MsgProp))
	}
	if repeats != 2 {
		t.Errorf("repeated %d times in 2.5 election timeouts", repeats)
	}
}
