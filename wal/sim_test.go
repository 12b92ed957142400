package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"

	"quire/disk"
)

var (
	seedsFlag = flag.Int("seeds", 2000, "how many seeds the crash simulation runs")
	seedFlag  = flag.Int64("seed", -1, "run only this seed of the crash simulation")
)

// model is the log as the acknowledgements promise it.
type model struct {
	recs  [][]byte // recs[i] has position i+1; what was appended since the last recovery may be lost
	acked Pos
	trim  Pos
}

func (m *model) clone() *model {
	c := *m
	c.recs = append([][]byte(nil), m.recs...)
	return &c
}

// check compares what a recovery gave with the model: acked ⊆ recovered ⊆
// issued, in order, without a gap, and nothing lost but what was trimmed.
func (m *model) check(rec Recovery, got []got) error {
	next := rec.FirstPos
	if first := max(m.trim, 1); rec.FirstPos > first {
		return fmt.Errorf("log begins with record %d, only those before %d were trimmed", rec.FirstPos, m.trim)
	}
	for _, g := range got {
		if g.pos != next {
			return fmt.Errorf("record %d came, want %d", g.pos, next)
		}
		if int(g.pos) > len(m.recs) {
			return fmt.Errorf("record %d was never appended (%d were)", g.pos, len(m.recs))
		}
		if !bytes.Equal(g.rec, m.recs[g.pos-1]) {
			return fmt.Errorf("record %d has wrong content: %d bytes %.20x, want %d bytes %.20x", g.pos, len(g.rec), g.rec, len(m.recs[g.pos-1]), m.recs[g.pos-1])
		}
		next++
	}
	if rec.LastPos != next-1 {
		return fmt.Errorf("LastPos %d after record %d", rec.LastPos, next-1)
	}
	if rec.LastPos < m.acked {
		return fmt.Errorf("record %d was acknowledged, log ends with %d", m.acked, rec.LastPos)
	}
	return nil
}

type got struct {
	pos Pos
	rec []byte
}

// sim is one seed.
type sim struct {
	rng    *rand.Rand
	opts   Options
	points *atomic.Int64
	unique uint64
}

// TestCrashSimulation runs random work and cuts the power at every operation of
// the disk, with several choices of what survives; recovers; checks; and on some
// of the images goes on, down to three crashes one after another.
func TestCrashSimulation(t *testing.T) {
	from, to := int64(0), int64(*seedsFlag)
	if testing.Short() {
		to = min(to, 200)
	}
	if *seedFlag >= 0 {
		from, to = *seedFlag, *seedFlag+1
	}
	var points, next atomic.Int64
	next.Store(from)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for seed := next.Add(1) - 1; seed < to && !t.Failed(); seed = next.Add(1) - 1 {
				if err := runSeed(uint64(seed), &points); err != nil {
					t.Errorf("seed %d: %v\nreplay: go test ./wal -run TestCrashSimulation -seed=%d", seed, err, seed)
				}
			}
		}()
	}
	wg.Wait()
	t.Logf("%d seeds, %d crash states", to-from, points.Load())
}

func runSeed(seed uint64, points *atomic.Int64) error {
	rng := rand.New(rand.NewPCG(seed, 0x77616c))
	batch := (1 + rng.IntN(3)) * blockBytes
	s := &sim{rng: rng, points: points, opts: Options{
		SegmentBytes:  int64(batch + (1+rng.IntN(6))*blockBytes),
		MaxBatchBytes: batch,
		QueueDepth:    1 + rng.IntN(4),
		SpareSegments: rng.IntN(3) - 1,
		LogID:         seed + 1,
		Manual:        true,
	}}
	return s.life(disk.NewMem(seed), &model{}, 0)
}

// life opens the log on m, works, and crashes at every operation on the way. In
// depth it goes on with some of the images.
func (s *sim) life(m *disk.Mem, mod *model, depth int) error {
	var failure error
	every := 1
	if depth > 0 {
		every = 1 + s.rng.IntN(12) // deeper levels take samples
	}
	m.OnOp(func(op int) {
		if failure != nil || op%every != 0 {
			return
		}
		for _, c := range s.choices() {
			if err := s.crash(m, c, mod, depth); err != nil && failure == nil {
				failure = fmt.Errorf("depth %d, operation %d, %+v: %w", depth, op, c, err)
			}
		}
	})
	l, err := s.reopen(m, mod)
	if err != nil {
		return err
	}
	steps := 10 + s.rng.IntN(40)
	if depth > 0 {
		steps = 2 + s.rng.IntN(15)
	}
	for range steps {
		if l, err = s.step(m, l, mod); err != nil {
			return fmt.Errorf("depth %d: %w", depth, err)
		}
		if failure != nil {
			return failure
		}
	}
	err = l.Close()
	if failure != nil {
		return failure
	}
	return err
}

func (s *sim) choices() []disk.CrashChoice {
	a := disk.CrashChoice{Seed: s.rng.Uint64(), Strict: s.rng.IntN(2) == 0}
	b := disk.CrashChoice{Seed: s.rng.Uint64(), Strict: true, Fate: disk.Fate(1 + s.rng.IntN(3))}
	if s.rng.IntN(4) == 0 {
		b = disk.CrashChoice{Seed: s.rng.Uint64(), Process: true}
	}
	return []disk.CrashChoice{a, b}
}

// crash takes one image, recovers it, checks it, and perhaps goes on with it.
func (s *sim) crash(m *disk.Mem, c disk.CrashChoice, mod *model, depth int) error {
	s.points.Add(1)
	image := m.Crash(c)
	rec, records, err := readAll(image)
	if err != nil {
		return err
	}
	if err := mod.check(rec, records); err != nil {
		return err
	}
	if depth < 2 && s.rng.IntN(40) == 0 {
		return s.life(image, mod.clone(), depth+1)
	}
	return nil
}

// readAll recovers without changing anything.
func readAll(fsys disk.FS) (Recovery, []got, error) {
	var records []got
	r, err := newReader(fsys, visitor{record: func(pos Pos, rec []byte) error {
		records = append(records, got{pos, append([]byte(nil), rec...)})
		return nil
	}})
	if err != nil {
		return Recovery{}, nil, err
	}
	if _, _, err := r.run(); err != nil {
		return r.rec, records, err
	}
	return r.rec, records, nil
}

// reopen opens the log and takes what it found as the truth from now on.
func (s *sim) reopen(m *disk.Mem, mod *model) (*Log, error) {
	var records []got
	l, rec, err := Open(m, s.opts, func(pos Pos, rec []byte) error {
		records = append(records, got{pos, append([]byte(nil), rec...)})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	if err := mod.check(rec, records); err != nil {
		return nil, err
	}
	mod.recs = mod.recs[:rec.LastPos]
	mod.acked = rec.LastPos
	return l, nil
}

// step does one random thing.
func (s *sim) step(m *disk.Mem, l *Log, mod *model) (*Log, error) {
	switch k := s.rng.IntN(100); {
	case k < 45:
		mod.recs = append(mod.recs, s.record())
		rec := mod.recs[len(mod.recs)-1]
		cut := s.rng.IntN(len(rec) + 1)
		pos, err := l.AppendParts(rec[:cut], rec[cut:])
		if err == nil && int(pos) != len(mod.recs) {
			err = fmt.Errorf("append gave %d, want %d", pos, len(mod.recs))
		}
		if err != nil || s.rng.IntN(3) == 0 {
			return l, err
		}
		return l, l.Submit(1+s.rng.IntN(3), s.rng.IntN(4) == 0)
	case k < 80:
		return l, s.wait(l, mod)
	case k < 85:
		err := l.Maintain()
		if l.Stats().FillErr != nil { // no room for a segment: it may come yet
			err = nil
		}
		return l, err
	case k < 90:
		return l, l.Mark()
	case k < 97:
		mod.trim = max(mod.trim, Pos(s.rng.IntN(int(mod.acked)+2)))
		return l, l.TrimBefore(mod.trim)
	}
	if err := l.Close(); err != nil {
		return l, err
	}
	mod.acked = Pos(len(mod.recs)) // Close writes everything
	rec, _, err := readAll(m)
	if err == nil && (!rec.Clean || rec.CutBytes != 0) {
		err = fmt.Errorf("not clean after Close: %+v", rec)
	}
	if err != nil {
		return l, err
	}
	return s.reopen(m, mod)
}

// wait takes completions, if there are any to come.
func (s *sim) wait(l *Log, mod *model) error {
	pos, err := l.Poll()
	if err == nil && pos < mod.acked {
		err = errors.New("durable position moved back")
	}
	mod.acked = max(mod.acked, pos)
	return err
}

// record makes a record with unique content: mostly small, sometimes larger
// than a batch, sometimes empty.
func (s *sim) record() []byte {
	n := s.rng.IntN(300)
	switch s.rng.IntN(12) {
	case 0:
		n = s.rng.IntN(3 * s.opts.MaxBatchBytes)
	case 1:
		n = capacity(s.opts.MaxBatchBytes) - headerBytes - frameBytes - 4 + s.rng.IntN(9)
	case 2:
		n = 0
	}
	s.unique++
	rec := make([]byte, n)
	for i := range rec {
		rec[i] = byte(s.unique) + byte(i)
	}
	if n >= 8 {
		binary.LittleEndian.PutUint64(rec, s.unique*0x9e3779b97f4a7c15)
	}
	return rec
}

func TestMain(m *testing.M) {
	flag.Parse()
	debug.SetGCPercent(1000) // thousands of small images die young; collecting a tiny heap took half of the time
	os.Exit(m.Run())
}
