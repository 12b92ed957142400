package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	"quire/api/mvccpb"
	"quire/disk"
	"quire/engine"
	"quire/pagestore"
	"quire/raft"
	"quire/wal"

	pb "quire/api/etcdserverpb"
)

// The whole storage stack (engine, page store, raft, log) on a disk that loses
// power. Every operation also counts itself in one key, so that after a crash
// the state tells how many operations it holds; the state must then be exactly
// what that many operations make, with every acknowledged one among them.

var (
	crashSeeds = flag.Int("crash.seeds", 1500, "random crash runs")
	crashSeed  = flag.Uint64("crash.seed", 0, "run only this seed")
	crashFull  = flag.Int("crash.full", 6, "workloads of which every crash point is tried")
)

const counterKey = "counter"

// crashOp is one operation of the workload; apply is its effect on the model.
type crashOp struct {
	wire  []byte
	apply func(*crashModel)
}

type crashModel struct {
	rev, compact int64
	kvs          map[string]*mvccpb.KeyValue
	leases       map[int64]bool
	users        int // that were added: u1, u2, …
}

func (m *crashModel) put(key, value string, lease int64) {
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: []byte(value), ModRevision: m.rev, CreateRevision: m.rev, Version: 1, Lease: lease}
	if old := m.kvs[key]; old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	m.kvs[key] = kv
}

// replay makes the model of the first n operations.
func replay(ops []crashOp, n int) *crashModel {
	m := &crashModel{rev: 1, compact: -1, kvs: map[string]*mvccpb.KeyValue{}, leases: map[int64]bool{}}
	for _, op := range ops[:n] {
		op.apply(m)
	}
	return m
}

func crashTxn(ops ...*pb.RequestOp) []byte {
	b, err := (&pb.TxnRequest{Success: ops}).MarshalVT()
	if err != nil {
		panic(err)
	}
	return engine.AppendOp(nil, engine.OpTxn, b)
}

func putReq(key, value string, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: lease}}}
}

// newOp makes operation number n (from 1), given the model before it.
func newOp(rnd *rand.Rand, n int, m *crashModel) crashOp {
	key := "k" + strconv.Itoa(rnd.IntN(12))
	count := putReq(counterKey, strconv.Itoa(n), 0)
	switch k := rnd.IntN(20); {
	case k < 12:
		value := fmt.Sprintf("%d-%0*d", n, rnd.IntN(600), 0)
		if rnd.IntN(30) == 0 {
			value = fmt.Sprintf("%d-%0*d", n, 9000, 0) // larger than a page
		}
		lease := int64(0)
		if rnd.IntN(4) == 0 && m.leases[1] {
			lease = 1
		}
		return crashOp{crashTxn(count, putReq(key, value, lease)), func(m *crashModel) {
			m.rev++
			m.put(counterKey, strconv.Itoa(n), 0)
			m.put(key, value, lease)
		}}
	case k < 15:
		del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
		return crashOp{crashTxn(count, del), func(m *crashModel) {
			m.rev++
			m.put(counterKey, strconv.Itoa(n), 0)
			delete(m.kvs, key)
		}}
	case k < 17 && m.rev > m.compact+1:
		rev := m.compact + 1 + rnd.Int64N(m.rev-m.compact)
		b, _ := (&pb.CompactionRequest{Revision: rev}).MarshalVT()
		return counted(n, engine.AppendOp(nil, engine.OpCompact, b), func(m *crashModel) { m.compact = rev })
	case !m.leases[1]:
		b, _ := (&pb.LeaseGrantRequest{ID: 1, TTL: 100}).MarshalVT()
		return counted(n, engine.AppendOp(nil, engine.OpLeaseGrant, b), func(m *crashModel) { m.leases[1] = true })
	default:
		b, _ := (&pb.LeaseRevokeRequest{ID: 1}).MarshalVT()
		return counted(n, engine.AppendOp(nil, engine.OpLeaseRevoke, b), func(m *crashModel) {
			delete(m.leases, 1)
			var gone []string
			for k, kv := range m.kvs {
				if kv.Lease == 1 {
					gone = append(gone, k)
				}
			}
			if len(gone) > 0 {
				m.rev++
			}
			for _, k := range gone {
				delete(m.kvs, k)
			}
		})
	}
}

// newUser makes an operation that adds a user.
func newUser(n int, m *crashModel) crashOp {
	b, _ := (&pb.AuthUserAddRequest{Name: fmt.Sprintf("u%d", m.users+1), HashedPassword: "aGFzaA=="}).MarshalVT()
	return counted(n, engine.AppendOp(nil, engine.OpUserAdd, b), func(m *crashModel) { m.users++ })
}

// counted is an operation that cannot count itself: the counting put follows in
// the same raft operation list, so the two are applied together.
func counted(n int, wire []byte, apply func(*crashModel)) crashOp {
	return crashOp{wire, func(m *crashModel) {
		apply(m)
		m.rev++
		m.put(counterKey, strconv.Itoa(n), 0)
	}}
}

// crashStack is the stack over one disk.
type crashStack struct {
	fs    *disk.Mem
	e     *engine.Engine
	n     *raft.Node
	step  *raft.Stepper
	log   *wal.Log
	fatal error
}

func openStack(fs *disk.Mem) (*crashStack, error) {
	s := &crashStack{fs: fs}
	var err error
	s.e, err = engine.Open(fs, engine.Options{ClusterID: 3, MemberID: 1, QuotaBytes: -1, CheckpointBytes: 1 << 40,
		Members:      []*pb.Member{{ID: 1}},
		Pages:        pagestore.Options{SegmentBytes: 16 << 10, PageBytes: 4 << 10, Inline: true},
		OnCheckpoint: func(i uint64) { s.note(s.step.Compact(raft.Index(i))) },
		OnFatal:      func(err error) { s.note(err) }})
	if err != nil {
		return nil, err
	}
	mode := raft.RefuseNewLog
	if s.e.AppliedIndex() == 0 {
		mode = raft.BootstrapNewLog
	}
	open := func(replay func(wal.Pos, []byte) error) (raft.Log, raft.Found, error) {
		l, _, err := wal.Open(fs, wal.Options{SegmentBytes: 64 << 10, MaxBatchBytes: 8 << 10, Manual: true, LogID: 5,
			MustExist: mode == raft.RefuseNewLog}, replay)
		s.log = l
		return l, raft.Found{}, err
	}
	s.n, s.step, err = raft.OpenManual(raft.Config{ID: 1, ClusterID: 3, NewLog: mode, Session: 1,
		Applied: raft.Index(s.e.AppliedIndex()), AppliedTerm: raft.Term(s.e.Term()), ConfState: s.e.ConfState()}, open, s.e)
	if err != nil {
		return nil, err
	}
	// Elect: the vote and the first entry of the term each take a write.
	for i := 0; s.e.Term() != uint64(s.n.Status().Term) || !s.n.Status().IsLeader; i++ {
		if i > 50 {
			return nil, errors.New("no leader after 50 steps")
		}
		if !s.turn() {
			s.step.Tick()
		}
		if s.fatal != nil {
			return nil, s.fatal
		}
	}
	return s, nil
}

func (s *crashStack) note(err error) {
	if err != nil && s.fatal == nil {
		s.fatal = err
	}
}

// turn completes one write if one is in flight and applies what is committed.
func (s *crashStack) turn() bool {
	did := false
	if s.log.InFlight() > 0 {
		s.note(s.step.Complete())
		did = true
	}
	return s.step.Apply() || did
}

type crashWaiter struct {
	run *crashRun
	n   int // operation number; 0: not the one that counts
}

func (w crashWaiter) Applied(r *engine.Reply) {
	if r.Err != nil {
		w.run.t.Errorf("seed %d: operation %d: %v", w.run.seed, w.n, r.Err)
	}
	w.run.acked = max(w.run.acked, w.n)
}
func (w crashWaiter) Dropped(error) {}

// crashRun is one workload with up to three crashes.
type crashRun struct {
	t     *testing.T
	seed  uint64
	rnd   *rand.Rand
	ops   []crashOp
	acked int
	users bool // add users too
}

// drive issues operations until the disk stops or steps are done.
func (r *crashRun) drive(s *crashStack, steps int) {
	m := replay(r.ops, len(r.ops))
	for i := 0; i < steps && s.fatal == nil; i++ {
		switch k := r.rnd.IntN(20); {
		case k < 10:
			n := len(r.ops) + 1
			var op crashOp
			if r.users && r.rnd.IntN(6) == 0 {
				op = newUser(n, m)
			} else {
				op = newOp(r.rnd, n, m)
			}
			op.apply(m)
			r.ops = append(r.ops, op)
			r.propose(s, op, n)
		case k < 17:
			s.turn()
		case k == 17:
			s.note(ignoreCrash(s.e.Checkpoint()))
		case k == 18:
			s.note(s.e.RunPending())
		default:
			s.note(s.log.Maintain())
		}
	}
	for s.fatal == nil && s.turn() {
	}
}

func ignoreCrash(err error) error {
	if errors.Is(err, pagestore.ErrNoSpace) {
		return nil
	}
	return err
}

func (r *crashRun) propose(s *crashStack, op crashOp, n int) {
	first := 0
	if engine.OpKind(op.wire[0]) == engine.OpTxn {
		first = n
	}
	s.note(s.n.Enqueue(crashWaiter{r, first}, op.wire, nil))
	if first == 0 {
		s.note(s.n.Enqueue(crashWaiter{r, n}, crashTxn(putReq(counterKey, strconv.Itoa(n), 0)), nil))
	}
	s.n.Kick()
}

// check compares a recovered stack with the model and returns how many
// operations it holds.
func (r *crashRun) check(s *crashStack) {
	t := r.t
	t.Helper()
	get := func(key, end string) *pb.RangeResponse {
		body, rev, err := s.e.Range(&pb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}, nil)
		resp := new(pb.RangeResponse)
		if err == nil {
			err = resp.UnmarshalVT(body)
		}
		if err != nil {
			t.Fatalf("seed %d: %v", r.seed, err)
		}
		resp.Header = &pb.ResponseHeader{Revision: rev}
		return resp
	}
	held := 0
	if c := get(counterKey, ""); len(c.Kvs) == 1 {
		held, _ = strconv.Atoi(string(c.Kvs[0].Value))
	}
	if held < r.acked || held > len(r.ops) {
		t.Fatalf("seed %d: recovered %d operations, acknowledged %d, issued %d", r.seed, held, r.acked, len(r.ops))
	}
	m := replay(r.ops, held)
	all := get("\x00", "\x00")
	if all.Header.Revision != m.rev || s.e.CompactRevision() != m.compact || len(all.Kvs) != len(m.kvs) {
		t.Fatalf("seed %d after %d operations: revision %d compact %d keys %d, want %d %d %d", r.seed, held,
			all.Header.Revision, s.e.CompactRevision(), len(all.Kvs), m.rev, m.compact, len(m.kvs))
	}
	for _, kv := range all.Kvs {
		if !proto.Equal(kv, m.kvs[string(kv.Key)]) {
			t.Fatalf("seed %d after %d operations: got %v, want %v", r.seed, held, kv, m.kvs[string(kv.Key)])
		}
	}
	if got := len(s.e.Leases()); got != len(m.leases) {
		t.Fatalf("seed %d: %d leases, want %d", r.seed, got, len(m.leases))
	}
	if st := s.e.AuthState(); len(st.Users) != m.users || st.Revision != uint64(1+m.users) {
		t.Fatalf("seed %d after %d operations: %d users at revision %d, want %d", r.seed, held, len(st.Users), st.Revision, m.users)
	}
	r.ops, r.acked = r.ops[:held], held
}

// TestPowerCut cuts the power at a random operation of the disk, three times in
// a row, for many seeds.
func TestPowerCut(t *testing.T) {
	if *crashSeed != 0 {
		powerCut(t, *crashSeed, false)
		return
	}
	for seed := uint64(1); seed <= uint64(*crashSeeds); seed++ {
		if powerCut(t, seed, false); t.Failed() {
			t.Fatalf("replay: go test ./cmd/quire -run TestPowerCut -crash.seed=%d", seed)
		}
	}
}

// TestUsersAfterPowerCut is TestPowerCut with users among the operations; apart
// from it, so that its seeds stay what they were.
func TestUsersAfterPowerCut(t *testing.T) {
	first, last := uint64(1), uint64(*crashSeeds/5)
	if *crashSeed != 0 {
		first, last = *crashSeed, *crashSeed
	}
	for seed := first; seed <= last; seed++ {
		if powerCut(t, seed, true); t.Failed() {
			t.Fatalf("replay: go test ./cmd/quire -run TestUsersAfterPowerCut -crash.seed=%d", seed)
		}
	}
}

func powerCut(t *testing.T, seed uint64, users bool) {
	r := &crashRun{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 2)), users: users}
	fs := disk.NewMem(seed)
	for depth := range 3 {
		fs.StopAfter(fs.Ops() + 1 + r.rnd.IntN(150))
		s, err := openStack(fs)
		if err == nil {
			r.check(s)
			r.drive(s, 60)
		} else if !errors.Is(err, disk.ErrCrashed) {
			t.Fatalf("seed %d depth %d: %v", seed, depth, err)
		}
		fs = fs.Crash(randomCrash(r.rnd))
	}
	s, err := openStack(fs)
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	r.check(s)
}

// TestEveryCrashPoint tries each operation of the disk as the last one.
func TestEveryCrashPoint(t *testing.T) {
	for seed := uint64(1); seed <= uint64(*crashFull); seed++ {
		for stop := 1; ; stop++ {
			r := &crashRun{t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 3))}
			fs := disk.NewMem(seed)
			fs.StopAfter(stop)
			s, err := openStack(fs)
			if err == nil {
				r.drive(s, 50)
			}
			over := fs.Ops() < stop // the workload ended before the crash
			fs = fs.Crash(randomCrash(r.rnd))
			if s, err = openStack(fs); err != nil {
				t.Fatalf("seed %d stop %d: %v", seed, stop, err)
			}
			r.check(s)
			if over {
				break
			}
		}
	}
}

func randomCrash(rnd *rand.Rand) disk.CrashChoice {
	return disk.CrashChoice{Seed: rnd.Uint64(), Fate: disk.Fate(rnd.IntN(4)), Strict: rnd.IntN(2) == 0, Process: rnd.IntN(4) == 0}
}
