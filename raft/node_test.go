package raft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"quire/disk"
	"quire/wal"
)

func singleConfig() Config {
	return Config{ID: 1, ClusterID: 7, NewLog: BootstrapNewLog, ConfState: EncodeConfState([]uint64{1}, nil)}
}

func openSingle(t testing.TB, l *fakeLog, sm StateMachine) *Node {
	t.Helper()
	n, err := Open(singleConfig(), l.open, sm)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func waitResult(t testing.TB, w *fakeWaiter) string {
	t.Helper()
	select {
	case <-w.done:
		return w.result()
	case <-time.After(10 * time.Second):
		t.Fatalf("waiter of %q: never told", w.op)
		return ""
	}
}

func TestSingleVoterProposes(t *testing.T) {
	l, sm := newFakeLog(true), newModel(1)
	n := openSingle(t, l, sm)
	for i := range 100 {
		w := newWaiter(fmt.Sprint("op", i))
		if err := n.Propose([]byte(w.op), w); err != nil {
			t.Fatal(err)
		}
		if got := waitResult(t, w); got != "applied" {
			t.Fatal(got)
		}
	}
	if !n.ReadIndex(newReader()) {
		t.Error("a single voter that has committed must read at once")
	}
	s := n.Status()
	if !s.IsLeader || s.Lead != 1 || s.Term != 2 || s.Applied != 102 || s.PendingOps != 0 {
		t.Errorf("status %+v", s)
	}
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := n.Propose([]byte("x"), nil); !errors.Is(err, ErrStopped) {
		t.Errorf("after Stop: %v", err)
	}
	// A restart without a checkpoint replays everything.
	sm2 := newModel(1)
	n2, err := Open(Config{ID: 1, ClusterID: 7}, l.crash(0).open, sm2)
	if err != nil {
		t.Fatal(err)
	}
	r := newReader()
	if !n2.ReadIndex(r) {
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
	}
	if got := sm2.snapshotOps(); len(got) != 100 || got[99] != "op99" {
		t.Errorf("replayed %d operations", len(got))
	}
	n2.Stop(context.Background())
}

func TestManyProposers(t *testing.T) {
	l, sm := newFakeLog(true), newModel(1)
	n := openSingle(t, l, sm)
	const clients, each = 50, 200
	var wg sync.WaitGroup
	for c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				w := newWaiter(opName(c, i))
				if err := n.Propose([]byte(w.op), w); err != nil {
					t.Error(err)
					return
				}
				if got := waitResult(t, w); got != "applied" {
					t.Error(got)
					return
				}
			}
		}()
	}
	wg.Wait()
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(sm.ops) != clients*each {
		t.Errorf("%d operations applied, want %d", len(sm.ops), clients*each)
	}
	t.Logf("%d entries, %d writes, %d groups", sm.applied.index, l.writes, sm.groups)
}

// hub is a Transport between Nodes in one process, with a goroutine per member.
type hub struct {
	mu    sync.Mutex
	nodes map[uint64]*Node
	boxes map[uint64]chan *raftpb.Message
	down  map[uint64]bool
	wg    sync.WaitGroup
}

func newHub(ids ...uint64) *hub {
	h := &hub{nodes: map[uint64]*Node{}, boxes: map[uint64]chan *raftpb.Message{}, down: map[uint64]bool{}}
	for _, id := range ids {
		h.boxes[id] = make(chan *raftpb.Message, 4096)
	}
	return h
}

func (h *hub) Send(msgs []*raftpb.Message) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, m := range msgs {
		if h.down[m.GetFrom()] || h.down[m.GetTo()] || h.boxes[m.GetTo()] == nil {
			continue
		}
		select {
		case h.boxes[m.GetTo()] <- m:
		default: // full: lost
		}
	}
}

func (h *hub) add(id uint64, n *Node) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes[id] = n
	h.wg.Add(1)
	go func() {
		defer h.wg.Done()
		for m := range h.boxes[id] {
			_ = n.Step(m)
		}
	}()
}

func (h *hub) cut(id uint64, down bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down[id] = down
}

func (h *hub) close(t *testing.T) {
	for _, n := range h.nodes {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = n.Stop(ctx)
		cancel()
	}
	for _, b := range h.boxes {
		close(b)
	}
	h.wg.Wait()
}

func openThree(t *testing.T) (*hub, []*Node, []*model) {
	t.Helper()
	ids := []uint64{1, 2, 3}
	h := newHub(ids...)
	var nodes []*Node
	var sms []*model
	for _, id := range ids {
		sm := newModel(ids...)
		n, err := Open(Config{
			ID: id, ClusterID: 7, NewLog: BootstrapNewLog, ConfState: EncodeConfState(ids, nil),
			Transport: h, HeartbeatMillis: 10, ElectionMillis: 100,
		}, newFakeLog(true).open, sm)
		if err != nil {
			t.Fatal(err)
		}
		h.add(id, n)
		nodes, sms = append(nodes, n), append(sms, sm)
	}
	return h, nodes, sms
}

func waitLeader(t *testing.T, nodes ...*Node) *Node {
	t.Helper()
	for range 1000 {
		for _, n := range nodes {
			if n.Status().IsLeader {
				return n
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no leader")
	return nil
}

// TestThreeNodes runs real goroutines on a simulated clock: proposals and reads
// on all members, a hand-over and a lost leader.
func TestThreeNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, nodes, sms := openThree(t)
		lead := waitLeader(t, nodes...)
		var wg sync.WaitGroup
		ops := make(chan *fakeWaiter, 10000)
		for c, n := range nodes {
			for k := range 8 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for i := range 40 {
						w := newWaiter(opName(c*100+k, i))
						if err := n.Propose([]byte(w.op), w); err != nil {
							continue
						}
						ops <- w
						<-w.done
						r := newReader()
						if !n.ReadIndex(r) {
							<-r.done
						}
						time.Sleep(time.Duration(i) * time.Millisecond)
					}
				}()
			}
		}
		time.Sleep(100 * time.Millisecond)
		to := nodes[lead.Status().ID%3].Status().ID
		if err := lead.TransferLeadership(context.Background(), to); err != nil {
			t.Errorf("hand-over: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
		lost := waitLeader(t, nodes...)
		h.cut(lost.Status().ID, true)
		time.Sleep(500 * time.Millisecond)
		h.cut(lost.Status().ID, false)
		wg.Wait()
		close(ops)
		time.Sleep(time.Second)
		checkThree(t, sms, ops)
		h.close(t)
	})
}

func checkThree(t *testing.T, sms []*model, ops chan *fakeWaiter) {
	t.Helper()
	have := map[string]int{}
	for _, op := range sms[0].snapshotOps() {
		have[op]++
	}
	for i, sm := range sms[1:] {
		if !slices.Equal(sm.snapshotOps(), sms[0].snapshotOps()) {
			t.Errorf("member %d applied other operations than member 1", i+2)
		}
	}
	acked := 0
	for w := range ops {
		switch out := w.result(); {
		case out == "applied":
			acked++
			if have[w.op] != 1 {
				t.Errorf("%q acknowledged and applied %d times", w.op, have[w.op])
			}
		case have[w.op] > 1:
			t.Errorf("%q applied %d times", w.op, have[w.op])
		case have[w.op] == 1 && !errors.Is(w.err, ErrTimeout):
			t.Errorf("%q applied, but its waiter was told %q", w.op, out)
		}
	}
	if acked < 800 {
		t.Errorf("only %d of 960 operations were acknowledged", acked)
	}
}

func TestNoLeaderTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sm := newModel(1, 2)
		n, err := Open(Config{
			ID: 1, ClusterID: 7, NewLog: BootstrapNewLog, ConfState: EncodeConfState([]uint64{1, 2}, nil),
		}, newFakeLog(true).open, sm)
		if err != nil {
			t.Fatal(err)
		}
		w, r := newWaiter("lonely"), newReader()
		if err := n.Propose([]byte("lonely"), w); err != nil {
			t.Fatal(err)
		}
		if n.ReadIndex(r) {
			t.Fatal("read without a leader")
		}
		begin := time.Now()
		<-w.done
		if !errors.Is(w.err, ErrNoLeader) {
			t.Errorf("got %v", w.err)
		}
		if err := <-r.done; !errors.Is(err, ErrNoLeader) {
			t.Errorf("read got %v", err)
		}
		if took := time.Since(begin); took < 7*time.Second || took > 8*time.Second {
			t.Errorf("took %v", took)
		}
		if err := n.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestBounds(t *testing.T) {
	l, sm := newFakeLog(false), newModel(1)
	cfg := singleConfig()
	cfg.MaxPendingOps, cfg.MaxPendingBytes, cfg.MaxOpBytes = 10, 100, 200
	n, st, err := OpenManual(cfg, l.open, sm)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Propose(make([]byte, 201), nil); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if err := n.Propose(make([]byte, 150), nil); err != nil {
		t.Errorf("one operation above the byte bound must pass when nothing is pending: %v", err)
	}
	if err := n.Propose(nil, nil); !errors.Is(err, ErrTooManyRequests) {
		t.Errorf("bytes: %v", err)
	}
	settleManualFake(t, n, st, l)
	for i := range 10 {
		if err := n.Propose(nil, nil); err != nil {
			t.Fatalf("operation %d: %v", i, err)
		}
	}
	if err := n.Propose(nil, nil); !errors.Is(err, ErrTooManyRequests) {
		t.Errorf("operations: %v", err)
	}
	settleManualFake(t, n, st, l)
	if ops, bytes := n.q.pending(); ops != 0 || bytes != 0 {
		t.Errorf("%d operations and %d bytes still counted", ops, bytes)
	}
	if err := n.Propose(nil, nil); err != nil {
		t.Error(err)
	}
}

// settleManualFake runs a member on a fakeLog until nothing is left to do.
func settleManualFake(t testing.TB, n *Node, st *Stepper, l *fakeLog) {
	t.Helper()
	for {
		n.Kick()
		l.sync()
		did := st.Apply()
		if l.durable > l.told {
			did = true
			if err := st.Complete(); err != nil {
				t.Fatal(err)
			}
		}
		if !did {
			return
		}
	}
}

// TestLargeOperationGetsItsOwnEntry: batches are bounded in operations and bytes.
func TestLargeOperationGetsItsOwnEntry(t *testing.T) {
	l, sm := newFakeLog(false), newModel(1)
	cfg := singleConfig()
	cfg.MaxBatchOps, cfg.MaxBatchBytes = 3, 100
	n, st, err := OpenManual(cfg, l.open, sm)
	if err != nil {
		t.Fatal(err)
	}
	settleManualFake(t, n, st, l)
	first := n.Status().LastIndex
	for _, size := range []int{1, 1, 1, 1, 500, 1, 60, 60} {
		if err := n.Enqueue(nil, make([]byte, size), nil); err != nil {
			t.Fatal(err)
		}
	}
	settleManualFake(t, n, st, l)
	if got := n.Status().LastIndex - first; got != 5 { // 1 1 1 | 1 | 500 | 1 60 | 60
		t.Errorf("%d entries", got)
	}
	if len(sm.ops) != 8 {
		t.Errorf("%d operations", len(sm.ops))
	}
}

func TestFatalLogError(t *testing.T) {
	l, sm := newFakeLog(false), newModel(1)
	n := openSingle(t, l, sm)
	for !n.Status().IsLeader {
		l.sync()
		time.Sleep(time.Millisecond)
	}
	w, r := newWaiter("late"), newReader()
	if err := n.Propose([]byte("late"), w); err != nil {
		t.Fatal(err)
	}
	if n.ReadIndex(r) {
		t.Error("read before the term's first entry is applied")
	}
	boom := errors.New("input/output error")
	l.fail(boom)
	<-n.Done()
	if !errors.Is(n.Err(), boom) {
		t.Errorf("Err is %v", n.Err())
	}
	if got := waitResult(t, w); !errors.Is(w.err, ErrStopped) {
		t.Errorf("waiter: %s", got)
	}
	if err := <-r.done; !errors.Is(err, ErrStopped) {
		t.Errorf("reader: %v", err)
	}
	if err := n.Propose(nil, nil); !errors.Is(err, ErrStopped) {
		t.Errorf("afterwards: %v", err)
	}
	n.ReadIndex(r)
	if err := <-r.done; !errors.Is(err, ErrStopped) {
		t.Errorf("read afterwards: %v", err)
	}
	if err := n.Step(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(uint64(9))}); !errors.Is(err, ErrStopped) {
		t.Errorf("step afterwards: %v", err)
	}
	if len(sm.ops) != 0 {
		t.Errorf("applied %q", sm.ops)
	}
	n.Stop(context.Background())
}

func TestStopGivesUpAtDeadline(t *testing.T) {
	l, sm := newFakeLog(false), newModel(1)
	n := openSingle(t, l, sm)
	for !n.Status().IsLeader {
		l.sync()
		time.Sleep(time.Millisecond)
	}
	w := newWaiter("stuck")
	if err := n.Propose([]byte("stuck"), w); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := n.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stop: %v", err)
	}
	if waitResult(t, w); !errors.Is(w.err, ErrStopped) {
		t.Errorf("waiter: %v", w.err)
	}
}

func TestMembershipOfOne(t *testing.T) {
	l, sm := newFakeLog(true), newModel(1)
	n := openSingle(t, l, sm)
	propose := func(cc *raftpb.ConfChangeV2) string {
		t.Helper()
		data, err := proto.Marshal(cc)
		if err != nil {
			t.Fatal(err)
		}
		w := newWaiter("cc")
		if err := n.ProposeConfChange(data, w); err != nil {
			return err.Error()
		}
		return waitResult(t, w)
	}
	add := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddLearnerNode.Enum(), NodeId: new(uint64(2))}}}
	if got := propose(add); got != "applied" {
		t.Fatal(got)
	}
	if n.pub.inline.Load() {
		t.Error("inline reads with a learner")
	}
	r := newReader()
	if n.ReadIndex(r) {
		t.Error("inline read with a learner")
	} else if err := <-r.done; err != nil {
		t.Error(err)
	}
	add.Context = []byte("refuse")
	if got := propose(add); got != "applied" { // the state machine answers the waiter; the membership stays
		t.Fatal(got)
	}
	two := &raftpb.ConfChangeV2{Changes: append(slices.Clone(add.Changes), add.Changes...)}
	if got := propose(two); got != ErrConfChangeInvalid.Error() {
		t.Error(got)
	}
	remove := &raftpb.ConfChangeV2{Changes: []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(2))}}}
	if got := propose(remove); got != "applied" {
		t.Fatal(got)
	}
	for range 1000 { // published when the group has been reported back
		if n.pub.inline.Load() {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !n.ReadIndex(newReader()) {
		t.Error("no inline read although alone again")
	}
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestCompact trims the log under a running member and restarts it from there.
func TestCompact(t *testing.T) {
	l, sm := newFakeLog(true), newModel(1)
	cfg := singleConfig()
	n, err := Open(cfg, l.open, sm)
	if err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 300<<10)
	for i := range 20 {
		w := newWaiter(fmt.Sprint(i, string(big)))
		if err := n.Propose([]byte(w.op), w); err != nil {
			t.Fatal(err)
		}
		waitResult(t, w)
	}
	before := n.Status()
	if err := n.Compact(before.Applied + 1000); err == nil {
		t.Error("compacted beyond the applied index")
	}
	for n.Status().Applied < before.LastIndex {
		time.Sleep(time.Millisecond)
	}
	at := n.Status().Applied
	if err := n.Compact(at); err != nil {
		t.Fatal(err)
	}
	if got := n.Status().LogBytes; got >= before.LogBytes {
		t.Errorf("log of %d bytes, was %d", got, before.LogBytes)
	}
	if l.first == 0 {
		t.Error("nothing trimmed")
	}
	term := sm.applied.term
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	cfg.Applied, cfg.AppliedTerm = at, Term(term)
	sm2 := newModel(1)
	n2, err := Open(cfg, l.crash(0).open, sm2)
	if err != nil {
		t.Fatal(err)
	}
	w := newWaiter("after")
	if err := n2.Propose([]byte("after"), w); err != nil {
		t.Fatal(err)
	}
	if got := waitResult(t, w); got != "applied" || len(sm2.snapshotOps()) != 1 {
		t.Errorf("%s, %d operations", got, len(sm2.snapshotOps()))
	}
	n2.Stop(context.Background())
}

// TestProposalIsCloned holds upstream to what core.proposal and the reuse of
// batches rely on: RawNode copies the entries of a local proposal.
func TestProposalIsCloned(t *testing.T) {
	l, sm := newFakeLog(false), newModel(1)
	n, st, err := OpenManual(singleConfig(), l.open, sm)
	if err != nil {
		t.Fatal(err)
	}
	settleManualFake(t, n, st, l)
	if err := n.Propose([]byte("original"), nil); err != nil {
		t.Fatal(err)
	}
	c := n.mu.c
	b := *c.under.own.front()
	copy(b.data, bytes.Repeat([]byte{'!'}, len(b.data)))
	c.prop.entry.Data = []byte("overwritten")
	settleManualFake(t, n, st, l)
	if len(sm.ops) != 1 || sm.ops[0] != "original" {
		t.Errorf("applied %q", sm.ops)
	}
}

// TestManyProposersOnTheRealLog runs proposers, readers and checkpoints at once
// on the real log with small segments, then restarts from the last checkpoint.
func TestManyProposersOnTheRealLog(t *testing.T) {
	mem := disk.NewMem(1)
	opts := wal.Options{SegmentBytes: 256 << 10, MaxBatchBytes: 64 << 10}
	var log *wal.Log
	open := func(replay func(Pos, []byte) error) (l Log, found Found, err error) {
		log, _, err = wal.Open(mem, opts, replay)
		return log, Found{}, err
	}
	sm := newModel(1)
	cfg := singleConfig()
	cfg.MarkEntries = 3
	n, err := Open(cfg, open, sm)
	if err != nil {
		t.Fatal(err)
	}
	const clients, each = 20, 100
	var wg sync.WaitGroup
	for c := range clients {
		wg.Add(1)
		go func() {
			defer wg.Done()
			pad := make([]byte, 500)
			for i := range each {
				w := newWaiter(opName(c, i) + string(pad))
				if err := n.Propose([]byte(w.op), w); err != nil {
					t.Error(err)
					return
				}
				if got := waitResult(t, w); got != "applied" {
					t.Error(got)
				}
				if r := newReader(); !n.ReadIndex(r) { // right after the start
					if err := <-r.done; err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	stop, saved := make(chan struct{}), make(chan entryID, 1)
	go func() {
		var at entryID
		for {
			select {
			case <-stop:
				saved <- at
				return
			case <-time.After(time.Millisecond):
			}
			sm.mu.Lock()
			next := sm.applied
			sm.mu.Unlock()
			if Index(next.index) <= n.Status().Applied && next.index > at.index {
				if err := n.Compact(Index(next.index)); err != nil {
					t.Error(err)
				}
				at = next
			}
		}
	}()
	wg.Wait()
	close(stop)
	at := <-saved
	if err := n.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	if len(sm.ops) != clients*each {
		t.Errorf("%d operations, want %d", len(sm.ops), clients*each)
	}
	t.Logf("%d entries, %d writes, checkpoint at %d, %d segments", sm.applied.index, log.Stats().Batches, at.index, log.Stats().Segments)
	cfg.Applied, cfg.AppliedTerm = Index(at.index), Term(at.term)
	sm2 := newModel(1)
	n2, err := Open(cfg, open, sm2)
	if err != nil {
		t.Fatal(err)
	}
	w := newWaiter("after")
	if err := n2.Propose([]byte("after"), w); err != nil {
		t.Fatal(err)
	}
	if got := waitResult(t, w); got != "applied" || sm2.applied.index < sm.applied.index {
		t.Errorf("%s at %d", got, sm2.applied.index)
	}
	if err := n2.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// TestAdmissionUndo: a batch that did not enter the log may come again, one
// that did may not.
func TestAdmissionUndo(t *testing.T) {
	var a admission
	prop := func(seq uint64) *raftpb.Message {
		data := append(appendOrigin(nil, origin{2, 77, 5, seq}), 1, 'x')
		return &raftpb.Message{Type: raftpb.MsgProp.Enum(), From: new(uint64(2)), Entries: []*raftpb.Entry{{Data: data}}}
	}
	for _, seq := range []uint64{1, 2, 3} {
		if !a.admit(prop(seq), 5) {
			t.Fatalf("%d is refused", seq)
		}
	}
	a.undo(prop(2))
	for seq, want := range map[uint64]bool{1: false, 2: true, 3: false} {
		if got := a.admit(prop(seq), 5); got != want {
			t.Errorf("%d again: %v", seq, got)
		}
	}
}
