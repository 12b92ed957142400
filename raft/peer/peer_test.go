package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// fakeRaft collects what the transport brings.
type fakeRaft struct {
	mu          sync.Mutex
	msgs        []*raftpb.Message
	unreachable map[uint64]int
	snapshots   map[uint64][]bool
	grown       chan struct{}
	slow        chan struct{} // not nil: StepAll waits for it
}

func newFakeRaft() *fakeRaft {
	return &fakeRaft{unreachable: map[uint64]int{}, snapshots: map[uint64][]bool{}, grown: make(chan struct{}, 1)}
}

func (r *fakeRaft) StepAll(ms []*raftpb.Message) {
	if r.slow != nil {
		<-r.slow
	}
	r.mu.Lock()
	r.msgs = append(r.msgs, ms...)
	r.mu.Unlock()
	r.wake()
}

func (r *fakeRaft) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.msgs)
}

func (r *fakeRaft) wake() {
	select {
	case r.grown <- struct{}{}:
	default:
	}
}

func (r *fakeRaft) ReportUnreachable(id uint64) {
	r.mu.Lock()
	r.unreachable[id]++
	r.mu.Unlock()
	r.wake()
}

func (r *fakeRaft) ReportSnapshot(id uint64, ok bool) {
	r.mu.Lock()
	r.snapshots[id] = append(r.snapshots[id], ok)
	r.mu.Unlock()
	r.wake()
}

// await waits until cond holds for what has come.
func (r *fakeRaft) await(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		r.mu.Lock()
		ok := cond()
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.grown:
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatalf("%s: not within 10 s; %d messages", what, r.count())
		}
	}
}

// node is one transport with its listener.
type node struct {
	*Transport
	raft *fakeRaft
	door *Listener
	lis  net.Listener
	logs *observer.ObservedLogs
}

func (n *node) url() string { return "http://" + n.lis.Addr().String() }

func startNode(t *testing.T, id uint64, change func(*Config)) *node {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startNodeOn(t, lis, id, change)
}

func startNodeOn(t *testing.T, lis net.Listener, id uint64, change func(*Config)) *node {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	n := &node{raft: newFakeRaft(), lis: lis, logs: logs}
	cfg := Config{ID: id, ClusterID: 7, ServerVersion: "3.7.1", PeerURLs: []string{n.url()}, Raft: n.raft, Logger: zap.New(core)}
	if change != nil {
		change(&cfg)
	}
	tr, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	n.Transport, n.door = tr, NewListener(zap.New(core))
	n.door.Attach(tr)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = n.door.Serve(lis, nil)
	}()
	t.Cleanup(func() {
		_ = lis.Close()
		<-served
		n.door.Close()
		tr.Close()
	})
	return n
}

// join makes the nodes peers of each other.
func join(t *testing.T, nodes ...*node) {
	t.Helper()
	var ms []Member
	for _, n := range nodes {
		ms = append(ms, Member{n.cfg.ID, []string{n.url()}})
	}
	for _, n := range nodes {
		n.SetMembers(ms)
	}
	for _, n := range nodes {
		for _, m := range nodes {
			if n != m {
				n.connected(t, m.cfg.ID)
			}
		}
	}
}

func (n *node) connected(t *testing.T, id uint64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		p := n.find(id)
		if p != nil && p.lanes[control].open.Load() != nil && p.lanes[bulk].open.Load() != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%x has no connections to %x", n.cfg.ID, id)
		}
	}
}

// logged waits for a line.
func (n *node) logged(t *testing.T, msg string) observer.LoggedEntry {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if got := n.logs.FilterMessage(msg).All(); len(got) > 0 {
			return got[0]
		}
		if time.Now().After(deadline) {
			t.Fatalf("%x has not logged %q but %v", n.cfg.ID, msg, n.logs.All())
		}
	}
}

func appMsg(from, to, index uint64, data ...[]byte) *raftpb.Message {
	m := &raftpb.Message{Type: raftpb.MsgApp.Enum(), From: &from, To: &to, Term: new(uint64(3)), LogTerm: new(uint64(2)), Index: &index, Commit: new(index)}
	for i, d := range data {
		m.Entries = append(m.Entries, &raftpb.Entry{Type: raftpb.EntryNormal.Enum(), Term: new(uint64(3)), Index: new(index + 1 + uint64(i)), Data: d})
	}
	return m
}

func beat(from, to uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &from, To: &to, Term: new(uint64(3)), Context: []byte("ctx")}
}

func TestMessagesArriveInOrder(t *testing.T) {
	a, b := startNode(t, 1, nil), startNode(t, 2, nil)
	join(t, a, b)
	big := bytes.Repeat([]byte("0123456789abcdef"), 3<<20/16)
	want := 0
	for i := range 200 {
		data := [][]byte{[]byte(fmt.Sprint("op", i)), big[:spliceBytes+i]}
		if i%50 == 7 {
			data = append(data, big)
		}
		a.Send([]*raftpb.Message{appMsg(1, 2, uint64(10*i), data...), beat(1, 2)})
		want += 2
	}
	b.raft.await(t, "messages", func() bool { return len(b.raft.msgs) == want })
	next := 0
	for _, m := range b.raft.msgs {
		if m.GetFrom() != 1 || m.GetTo() != 2 || m.GetTerm() != 3 {
			t.Fatalf("message %v", m)
		}
		if m.GetType() != raftpb.MsgApp {
			continue
		}
		if m.GetIndex() != uint64(10*next) || string(m.Entries[0].Data) != fmt.Sprint("op", next) || !bytes.Equal(m.Entries[1].Data, big[:spliceBytes+next]) {
			t.Fatalf("append %d is %d with %q", next, m.GetIndex(), m.Entries[0].Data)
		}
		if next%50 == 7 && !bytes.Equal(m.Entries[2].Data, big) {
			t.Fatalf("append %d has another large entry", next)
		}
		next++
	}
	if s := a.Stats()[0]; s.SentBytes < 12<<20 || s.SendFailures != 0 || !s.Active {
		t.Errorf("sender's counts %+v", s)
	}
	if s := b.Stats()[0]; s.ReceivedBytes < 12<<20 {
		t.Errorf("receiver's counts %+v", s)
	}
}

// TestSlowPeerIsBounded: a peer that reads nothing costs a bounded queue, its
// heartbeats go on, and raft is told of the loss.
func TestSlowPeerIsBounded(t *testing.T) {
	a := startNode(t, 1, nil)
	b := startNode(t, 2, nil)
	b.raft.slow = make(chan struct{})
	join(t, a, b)
	data := make([]byte, 1<<20)
	start := time.Now()
	for i := range 200 {
		a.Send([]*raftpb.Message{appMsg(1, 2, uint64(i), data)})
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("Send waited: 200 took %v", took)
	}
	a.raft.await(t, "report", func() bool { return a.raft.unreachable[2] > 0 })
	l := a.find(2).lanes[bulk].open.Load().link
	l.mu.Lock()
	waiting := l.mu.out.bytes
	l.mu.Unlock()
	if waiting > bulkLimit {
		t.Errorf("%d bytes wait, more than %d", waiting, bulkLimit)
	}
	if s := a.Stats()[0]; s.SendFailures == 0 {
		t.Error("no failure was counted")
	}
	close(b.raft.slow)
	b.raft.await(t, "first appends", func() bool { return len(b.raft.msgs) > 20 })
}

// TestHeartbeatsPassBulk: what is big does not hold up what is urgent.
func TestHeartbeatsPassBulk(t *testing.T) {
	a, b := startNode(t, 1, nil), startNode(t, 2, nil)
	p := slowProxy(t, b.lis.Addr().String(), 4<<20)
	a.SetMembers([]Member{{2, []string{"http://" + p.addr()}}})
	a.connected(t, 2)
	data := make([]byte, 1<<20)
	for i := range 20 {
		a.Send([]*raftpb.Message{appMsg(1, 2, uint64(i), data)})
	}
	start := time.Now()
	a.Send([]*raftpb.Message{beat(1, 2)})
	b.raft.await(t, "heartbeat", func() bool {
		for _, m := range b.raft.msgs {
			if m.GetType() == raftpb.MsgHeartbeat {
				return true
			}
		}
		return false
	})
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("the heartbeat took %v", took)
	}
	if n := b.raft.count(); n > 15 {
		t.Errorf("%d messages came before the heartbeat: the proxy is not slow", n)
	}
}

func TestReconnect(t *testing.T) {
	a, b := startNode(t, 1, nil), startNode(t, 2, nil)
	p := slowProxy(t, b.lis.Addr().String(), 0)
	a.SetMembers([]Member{{2, []string{"http://" + p.addr()}}})
	a.connected(t, 2)
	if a.ActiveSince(2).IsZero() {
		t.Error("not active")
	}
	for round := range 5 {
		p.cut()
		a.raft.await(t, "report of the loss", func() bool { return a.raft.unreachable[2] > round })
		a.connected(t, 2)
		before := b.raft.count()
		b.raft.await(t, "message after the cut", func() bool {
			a.Send([]*raftpb.Message{appMsg(1, 2, 1, []byte("again"))})
			return len(b.raft.msgs) > before
		})
	}
	a.logged(t, "peer became inactive (message send to peer failed)")
	if s := a.Stats()[0]; s.Disconnects == 0 {
		t.Errorf("counts %+v", s)
	}
}

// TestSilence: a connection that stays open but dead is given up.
func TestSilence(t *testing.T) {
	short := func(c *Config) { c.ReadTimeout = 1500 * time.Millisecond }
	a, b := startNode(t, 1, short), startNode(t, 2, short)
	p := slowProxy(t, b.lis.Addr().String(), 0)
	a.SetMembers([]Member{{2, []string{"http://" + p.addr()}}})
	a.connected(t, 2)
	time.Sleep(2500 * time.Millisecond)
	if n := a.Stats()[0].Disconnects; n != 0 {
		t.Errorf("an idle connection was given up %d times", n)
	}
	if rtt := a.Stats()[0].RoundTrips; rtt.Count == 0 || rtt.Sum <= 0 {
		t.Errorf("round trips %+v", rtt)
	}
	p.freeze()
	a.raft.await(t, "loss", func() bool { return a.Stats()[0].Disconnects > 0 })
}

// TestFlippedBits: a damaged byte anywhere behind the greeting never becomes a
// message.
func TestFlippedBits(t *testing.T) {
	a, b := startNode(t, 1, nil), startNode(t, 2, nil)
	p := slowProxy(t, b.lis.Addr().String(), 0)
	a.SetMembers([]Member{{2, []string{"http://" + p.addr()}}})
	a.connected(t, 2)
	want := bytes.Repeat([]byte("payload!"), 1000)
	for i := range 12 {
		p.flip(i * 691)
		b.raft.await(t, "flip", func() bool {
			a.Send([]*raftpb.Message{appMsg(1, 2, uint64(i), want)})
			return p.flipped()
		})
		a.connected(t, 2)
	}
	if b.Stats()[0].ReceiveFailures < 5 {
		t.Errorf("only %d of 12 flips were noticed behind the greeting", b.Stats()[0].ReceiveFailures)
	}
	b.raft.mu.Lock()
	defer b.raft.mu.Unlock()
	for _, m := range b.raft.msgs {
		if len(m.Entries) != 1 || !bytes.Equal(m.Entries[0].Data, want) {
			t.Fatalf("a damaged message came through: %d entries", len(m.Entries))
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		name         string
		dialer       func(*Config)
		listener     func(*Config)
		id           uint64 // that the dialer expects
		here, there  string // log lines of dialer and listener
		wantsRemoved bool
	}{
		{"cluster", func(c *Config) { c.ClusterID = 8 }, nil, 2,
			"request sent was ignored by remote peer due to cluster ID mismatch", "request cluster ID mismatch", false},
		{"identity", nil, nil, 3, "request sent was ignored by remote peer", "ignored streaming request; ID mismatch", false},
		{"removed", nil, func(c *Config) { c.Removed = func(id uint64) bool { return id == 1 } }, 2,
			"request sent was ignored by remote peer", "rejected stream from remote peer because it was removed", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			removed := make(chan struct{})
			a := startNode(t, 1, func(c *Config) {
				c.OnRemoved = func() { close(removed) }
				if tc.dialer != nil {
					tc.dialer(c)
				}
			})
			b := startNode(t, 2, tc.listener)
			a.SetMembers([]Member{{tc.id, []string{b.url()}}})
			a.logged(t, tc.here)
			b.logged(t, tc.there)
			if tc.wantsRemoved {
				<-removed
			}
			time.Sleep(100 * time.Millisecond)
			for _, n := range []*node{a, b} {
				if got := n.logs.FilterLevelExact(zapcore.WarnLevel).Len(); got > 3 {
					t.Errorf("%x has logged %d warnings: %v", n.cfg.ID, got, n.logs.All())
				}
			}
			if !a.ActiveSince(tc.id).IsZero() {
				t.Error("counts as active")
			}
		})
	}
}

// TestVersions: members without a common protocol version say so.
func TestVersions(t *testing.T) {
	b := startNode(t, 2, nil)
	conn, err := net.Dial("tcp", b.lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	h := hello{min: maxProtocol + 1, max: maxProtocol + 5, kind: control, cluster: 7, from: 1, to: 2, serverVersion: "9.9.9"}
	if _, err := conn.Write(appendFrame([]byte(magic), frameHello, h.encode())); err != nil {
		t.Fatal(err)
	}
	body, err := readFrame(conn, frameWelcome)
	if err != nil {
		t.Fatal(err)
	}
	var w welcome
	if err := w.decode(body); err != nil || w.refusal != refusedVersion || w.id != 2 || w.serverVersion != "3.7.1" {
		t.Errorf("answer %+v, %v", w, err)
	}
	b.logged(t, "failed version compatibility check")
	later := &refusedError{welcome{refusal: 99}, refusal(99).err()}
	if !isRefusal(later) || later.Error() == "" {
		t.Error("a refusal of a later version is no refusal")
	}
}

// TestStrangers: a member that is not known yet is answered.
func TestStrangers(t *testing.T) {
	a, b := startNode(t, 1, nil), startNode(t, 2, nil)
	a.SetMembers([]Member{{2, []string{b.url()}}}) // b knows nobody
	a.connected(t, 2)
	b.connected(t, 1)
	b.Send([]*raftpb.Message{beat(2, 1)})
	a.raft.await(t, "answer of a stranger", func() bool { return len(a.raft.msgs) == 1 })
	b.SetMembers(nil) // still a stranger
	b.Send([]*raftpb.Message{beat(2, 1)})
	a.raft.await(t, "second answer", func() bool { return len(a.raft.msgs) == 2 })
	b.SetMembers([]Member{{1, []string{a.url()}}})
	b.SetMembers(nil) // it was a member and is none any more
	if b.find(1) != nil {
		t.Error("a removed member is still there")
	}
}

func TestMembersComeAndGo(t *testing.T) {
	a, b := startNode(t, 1, nil), startNode(t, 2, nil)
	join(t, a, b)
	// b moves to another address; the old one is dead.
	moved := startNode(t, 2, nil)
	_ = b.lis.Close()
	b.Close()
	a.SetMembers([]Member{{1, []string{a.url()}}, {2, []string{"http://127.0.0.1:1", moved.url()}}})
	moved.raft.await(t, "message at the new address", func() bool {
		a.Send([]*raftpb.Message{appMsg(1, 2, 1, []byte("x"))})
		return len(moved.raft.msgs) > 0
	})
	a.SetMembers([]Member{{1, []string{a.url()}}})
	a.Send([]*raftpb.Message{appMsg(1, 2, 2, []byte("to nobody"))})
	if _, err := a.Call(t.Context(), 2, 1, nil); !errors.Is(err, ErrUnknownMember) {
		t.Errorf("call of a removed member: %v", err)
	}
}

func TestSuperseded(t *testing.T) {
	a := startNode(t, 1, nil)
	resp := func(to, index uint64, reject bool) *raftpb.Message {
		return &raftpb.Message{Type: raftpb.MsgAppResp.Enum(), To: &to, Term: new(uint64(3)), Index: &index, Reject: &reject}
	}
	for _, tc := range []struct {
		name string
		msgs []*raftpb.Message
		want uint64
	}{
		{"commit before entries", []*raftpb.Message{appMsg(1, 2, 5), appMsg(1, 3, 5), appMsg(1, 2, 5, []byte("x"))}, 0b001},
		{"entries before commit", []*raftpb.Message{appMsg(1, 2, 5, []byte("x")), appMsg(1, 2, 6)}, 0},
		{"commits", []*raftpb.Message{appMsg(1, 2, 5), appMsg(1, 2, 6), appMsg(1, 2, 7)}, 0b011},
		{"a lower one later", []*raftpb.Message{appMsg(1, 2, 7), appMsg(1, 2, 5)}, 0},
		{"acknowledgements", []*raftpb.Message{resp(2, 4, false), resp(3, 4, false), resp(2, 5, false)}, 0b001},
		{"rejections", []*raftpb.Message{resp(2, 4, true), resp(2, 5, false)}, 0},
		{"before a rejection", []*raftpb.Message{resp(2, 4, false), resp(2, 5, true)}, 0},
	} {
		if got := a.superseded(tc.msgs); got != tc.want {
			t.Errorf("%s: %b, want %b", tc.name, got, tc.want)
		}
	}
}

func TestCalls(t *testing.T) {
	block := make(chan struct{})
	a := startNode(t, 1, nil)
	b := startNode(t, 2, func(c *Config) {
		c.Handlers = map[Method]Handler{
			1: func(_ context.Context, from uint64, body []byte) ([]byte, error) {
				return fmt.Appendf(nil, "%x:%s", from, body), nil
			},
			2: func(context.Context, uint64, []byte) ([]byte, error) { return nil, errors.New("etcdserver: no") },
			3: func(ctx context.Context, _ uint64, _ []byte) ([]byte, error) {
				select {
				case <-block:
				case <-ctx.Done():
				}
				return nil, ctx.Err()
			},
			4: func(context.Context, uint64, []byte) ([]byte, error) { return make([]byte, 3<<20), nil },
			5: func(context.Context, uint64, []byte) ([]byte, error) { return make([]byte, maxControlFrame), nil },
		}
	})
	p := slowProxy(t, b.lis.Addr().String(), 0)
	a.SetMembers([]Member{{2, []string{"http://" + p.addr()}}})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			got, err := a.Call(ctx, 2, 1, fmt.Append(nil, i))
			if want := fmt.Sprint("1:", i); err != nil || string(got) != want {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
	wg.Wait()
	var ce *CallError
	if _, err := a.Call(ctx, 2, 2, nil); !errors.As(err, &ce) || ce.Text != "etcdserver: no" {
		t.Errorf("error %v", err)
	}
	if _, err := a.Call(ctx, 2, 99, nil); !errors.As(err, &ce) {
		t.Errorf("unknown method: %v", err)
	}
	if got, err := a.Call(ctx, 2, 4, nil); err != nil || len(got) != 3<<20 {
		t.Errorf("large answer: %d bytes, %v", len(got), err)
	}
	if _, err := a.Call(ctx, 2, 5, nil); !errors.As(err, &ce) {
		t.Errorf("too large an answer: %v", err)
	}
	soon, done := context.WithTimeout(ctx, 50*time.Millisecond)
	defer done()
	if _, err := a.Call(soon, 2, 3, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("blocked call: %v", err)
	}
	lost := make(chan error)
	go func() {
		_, err := a.Call(ctx, 2, 3, nil)
		lost <- err
	}()
	time.Sleep(50 * time.Millisecond)
	p.cut()
	if err := <-lost; !errors.Is(err, ErrCallLost) {
		t.Errorf("call over a cut connection: %v", err)
	}
	if _, err := a.Call(ctx, 2, 1, nil); err != nil {
		t.Errorf("call after the cut: %v", err)
	}
	close(block)
}

// TestRepeatedAcknowledgements: the same again within a moment is left out, and
// only that.
func TestRepeatedAcknowledgements(t *testing.T) {
	resp := func(term, index uint64, reject bool) *raftpb.Message {
		return &raftpb.Message{Type: raftpb.MsgAppResp.Enum(), Term: &term, Index: &index, Reject: &reject}
	}
	over, another := &caller{}, &caller{}
	var a acked
	for i, tc := range []struct {
		m    *raftpb.Message
		over *caller
		want bool
	}{
		{resp(3, 7, false), over, false}, {resp(3, 7, false), over, true}, {resp(3, 8, false), over, false}, {resp(3, 8, false), over, true},
		{resp(3, 7, false), over, false}, {resp(4, 7, false), over, false}, {resp(4, 7, true), over, false}, {resp(4, 7, false), over, false},
		{resp(4, 7, false), over, true}, {resp(4, 7, false), another, false}, {resp(4, 7, false), nil, false}, {resp(4, 7, false), another, false},
	} {
		if got := a.repeats(tc.m, tc.over, time.Hour); got != tc.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
	time.Sleep(2 * time.Millisecond)
	if a.repeats(resp(4, 7, false), another, time.Millisecond) {
		t.Error("not repeated after the window")
	}
}
