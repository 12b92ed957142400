package raft

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"quire/disk"
	"quire/wal"
)

var (
	crashSeeds = flag.Int("crash.seeds", 40, "seeds of the power-cut test")
	crashSeed  = flag.Uint64("crash.seed", 0, "run only this seed")
)

// crashSim is a single voter on the real log and the crashable disk. Power is
// cut at every operation of the disk.
type crashSim struct {
	rng    *rand.Rand
	opts   wal.Options
	points int
	issued int
}

// life is one run between two power cuts.
type life struct {
	s     *crashSim
	mem   *disk.Mem
	log   *wal.Log
	n     *Node
	st    *Stepper
	sm    *lifeMachine
	saved *simState // the store's durable checkpoint
	given []string  // issued in this life and before, as far as recovered
}

// lifeMachine keeps the applied operations and what was acknowledged.
type lifeMachine struct {
	state simState
	acked int // operations
	term  uint64
}

func (m *lifeMachine) Apply(index, term uint64, data []byte, ws []interface{ Dropped(error) }) {
	if m.state.applied.index != 0 && index != m.state.applied.index+1 {
		panic(fmt.Sprintf("apply %d after %d", index, m.state.applied.index))
	}
	m.state.applied = entryID{index, term}
	for len(data) > 0 {
		op, rest, err := NextOp(data)
		if err != nil {
			panic(err)
		}
		data = rest
		m.state.ops = append(m.state.ops, string(op))
	}
}

func (m *lifeMachine) ApplyConfChange(uint64, uint64, []byte, interface{ Dropped(error) }) []byte {
	panic("not proposed")
}

func (m *lifeMachine) Flush() { m.acked = len(m.state.ops) }

func (m *lifeMachine) LeaderChanged(lead, term uint64, isLeader bool) {
	if term < m.term {
		panic(fmt.Sprintf("term %d after %d", term, m.term))
	}
	m.term = term
}

func (s *crashSim) open(mem *disk.Mem, saved *simState, lastTerm uint64) (*life, error) {
	l := &life{s: s, mem: mem, saved: saved, sm: &lifeMachine{term: lastTerm}}
	l.sm.state.conf = &raftpb.ConfState{Voters: []uint64{1}}
	cfg := singleConfig()
	cfg.QueueDepth, cfg.MaxBatchOps, cfg.Session = s.opts.QueueDepth, 5, 1
	cfg.MarkEntries = 1 + s.rng.IntN(4)
	cfg.CatchupEntries = 1 + s.rng.IntN(5)
	if saved != nil {
		l.sm.state = saved.clone()
		cfg.Applied, cfg.AppliedTerm = Index(saved.applied.index), Term(saved.applied.term)
	}
	var err error
	l.n, l.st, err = OpenManual(cfg, func(replay func(Pos, []byte) error) (Log, Found, error) {
		var e error
		l.log, _, e = wal.Open(mem, s.opts, replay)
		if e != nil {
			return nil, Found{}, e
		}
		return l.log, Found{}, nil
	}, l.sm)
	return l, err
}

// settle runs until everything that was recovered is applied.
func (l *life) settle() error {
	for range 1000 {
		if st := l.n.Status(); st.IsLeader && st.Applied == st.LastIndex {
			return nil
		}
		if err := l.advance(); err != nil {
			return err
		}
	}
	return fmt.Errorf("no leader: %+v", l.n.Status())
}

func (l *life) advance() error {
	if l.log.InFlight() > 0 {
		if err := l.st.Complete(); err != nil {
			return err
		}
	}
	l.st.Apply()
	return l.log.Maintain()
}

func (l *life) propose() error {
	for range 1 + l.s.rng.IntN(4) {
		l.s.issued++
		op := fmt.Sprintf("%d:%s", l.s.issued, bytes.Repeat([]byte{'x'}, l.s.rng.IntN(900)))
		if l.s.rng.IntN(30) == 0 {
			op += string(bytes.Repeat([]byte{'y'}, l.s.rng.IntN(20000))) // more than a batch of the log
		}
		if err := l.n.Enqueue(nil, []byte(op), nil); err != nil {
			return err
		}
		l.given = append(l.given, op)
	}
	l.n.Kick()
	return nil
}

func (l *life) checkpoint() error {
	if l.n.Status().Applied != Index(l.sm.state.applied.index) || l.sm.state.applied.index == 0 {
		return nil
	}
	d := l.sm.state.clone()
	l.saved = &d
	return l.st.Compact(Index(d.applied.index))
}

func (l *life) step() error {
	switch r := l.s.rng.IntN(100); {
	case r < 45:
		return l.propose()
	case r < 70:
		if l.log.InFlight() == 0 {
			return nil
		}
		return l.st.Complete()
	case r < 85:
		l.st.Apply()
		return nil
	case r < 88:
		l.st.Tick()
		return nil
	case r < 94:
		return l.log.Maintain()
	default:
		return l.checkpoint()
	}
}

// run works, and looks at the power cut at every operation.
func (l *life) run(depth int) error {
	var failed error
	every := 1
	if depth > 0 {
		every = 1 + l.s.rng.IntN(20)
	}
	l.mem.OnOp(func(op int) {
		if failed != nil || op%every != 0 {
			return
		}
		c := disk.CrashChoice{Seed: l.s.rng.Uint64(), Strict: l.s.rng.IntN(2) == 0, Fate: disk.Fate(l.s.rng.IntN(4)), Process: l.s.rng.IntN(6) == 0}
		if err := l.cut(c, depth); err != nil {
			failed = fmt.Errorf("depth %d, operation %d, %+v: %w", depth, op, c, err)
		}
	})
	defer l.mem.OnOp(nil)
	steps := 60
	if depth > 0 {
		steps = 15
	}
	for range steps {
		if err := l.step(); err != nil {
			return errors.Join(err, failed)
		}
		if failed != nil {
			return failed
		}
	}
	return failed
}

// cut recovers what a power cut leaves: acked ⊆ recovered ⊆ issued, in order.
func (l *life) cut(c disk.CrashChoice, depth int) error {
	l.s.points++
	acked, saved := l.sm.acked, l.saved
	next, err := l.s.open(l.mem.Crash(c), saved, 0)
	if err != nil {
		return err
	}
	if err := next.settle(); err != nil {
		return err
	}
	got := next.sm.state.ops
	if len(got) < acked {
		return fmt.Errorf("%d operations recovered, %d were acknowledged", len(got), acked)
	}
	if len(got) > len(l.given) || !slices.Equal(got, l.given[:len(got)]) {
		return fmt.Errorf("recovered operations are not a prefix of the issued ones: %d of %d", len(got), len(l.given))
	}
	if next.sm.term <= l.sm.term && acked > 0 {
		return fmt.Errorf("leads in term %d after %d", next.sm.term, l.sm.term)
	}
	next.given = slices.Clone(got)
	if depth < 2 && l.s.rng.IntN(25) == 0 {
		if err := next.run(depth + 1); err != nil {
			return err
		}
	}
	return next.log.Close()
}

func runCrash(seed uint64) (points int, err error) {
	s := &crashSim{rng: rand.New(rand.NewPCG(seed, 3))}
	batch := (1 + s.rng.IntN(3)) * 4096
	s.opts = wal.Options{
		MaxBatchBytes: batch, SegmentBytes: int64(batch + (1+s.rng.IntN(6))*4096),
		QueueDepth: 1 + s.rng.IntN(3), Manual: true, LogID: seed,
	}
	l, err := s.open(disk.NewMem(seed), nil, 0)
	if err != nil {
		return 0, err
	}
	if err := l.settle(); err != nil {
		return 0, err
	}
	if err := l.run(0); err != nil {
		return s.points, err
	}
	return s.points, l.log.Close()
}

func TestPowerCutAtEveryOperation(t *testing.T) {
	if *crashSeed != 0 {
		if _, err := runCrash(*crashSeed); err != nil {
			t.Fatal(err)
		}
		return
	}
	total := 0
	for seed := range uint64(*crashSeeds) {
		n, err := runCrash(seed + 1)
		total += n
		if err != nil {
			t.Fatalf("seed %d: %v", seed+1, err)
		}
	}
	t.Logf("%d power cuts recovered", total)
}

// TestPowerCutDuringStart cuts at every operation of the first start.
func TestPowerCutDuringStart(t *testing.T) {
	s := &crashSim{rng: rand.New(rand.NewPCG(5, 3)), opts: wal.Options{
		MaxBatchBytes: 4096, SegmentBytes: 3 * 4096, QueueDepth: 2, Manual: true, LogID: 5,
	}}
	mem := disk.NewMem(5)
	points := 0
	mem.OnOp(func(op int) {
		for fate := range disk.Fate(4) {
			points++
			l, err := s.open(mem.Crash(disk.CrashChoice{Seed: uint64(op), Fate: fate, Strict: op%2 == 0}), nil, 0)
			if err == nil {
				err = l.settle()
			}
			if err == nil {
				err = l.log.Close()
			}
			if err != nil {
				t.Fatalf("operation %d, fate %d: %v", op, fate, err)
			}
		}
	})
	l, err := s.open(mem, nil, 0)
	if err == nil {
		err = l.settle()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d power cuts", points)
}
