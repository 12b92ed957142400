package pagestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"quire/disk"
)

var (
	seedFlag  = flag.Int64("seed", -1, "run only this seed of a randomized test")
	seedsFlag = flag.Int("seeds", 0, "number of seeds of each randomized test; 0: its default")
)

// eachSeed runs fn for the asked number of seeds in a few goroutines and says
// how to run a failing one again.
func eachSeed(t *testing.T, fallback int, fn func(seed uint64) error) {
	t.Helper()
	first, n := uint64(0), fallback
	if *seedsFlag > 0 {
		n = *seedsFlag
	}
	if *seedFlag >= 0 {
		first, n = uint64(*seedFlag), 1
	}
	const workers = 4
	failed := make(chan string, workers)
	done := make(chan bool)
	for w := range uint64(workers) {
		go func() {
			defer func() { done <- true }()
			for seed := first + w; seed < first+uint64(n); seed += workers {
				if err := fn(seed); err != nil {
					failed <- fmt.Sprintf("seed %d: %v\nagain: go test ./pagestore -run '^%s$' -seed %d", seed, err, t.Name(), seed)
					return
				}
			}
		}()
	}
	for range workers {
		<-done
	}
	close(failed)
	for msg := range failed {
		t.Error(msg)
	}
}

// world is a store under a random workload together with the model of it. A
// record has a number; its bytes follow from number and length.
type world struct {
	rng  *rand.Rand
	disk *disk.Mem
	dir  disk.FS // where the store lies, if not in the root
	s    *Store
	opts Options

	size     map[uint64]int // length of every record ever appended in this history
	place    map[uint64]Ref // of the live ones
	next     uint64         // number of the next record
	commits  int
	late     *Cut // taken, not yet committed
	lateIs   outcome
	possible []outcome // what a recovery may find: the last committed, then attempts

	onImage func(*disk.Mem, disk.CrashChoice, []outcome) error // at each operation of the disk
	fault   error                                              // of onImage
	images  int
	chances int // images at each operation, at least 1
}

// outcome is a checkpoint as the model knows it.
type outcome struct {
	meta string // "" before the first
	next uint64
	live []uint64
}

func newWorld(seed uint64, m *disk.Mem) *world {
	rng := rand.New(rand.NewPCG(seed, 11))
	opts := testOptions()
	opts.SegmentBytes = 16 << 10 << rng.IntN(3)
	opts.PageBytes = 4096 * (1 + rng.IntN(3))
	opts.DirtyBytes = 8 << 10 << rng.IntN(4)
	opts.FlushBytes = 4 << 10 << rng.IntN(3)
	opts.CacheBytes = int64(rng.IntN(3)) * 12 << 10
	opts.inlineState = 1 + rng.IntN(2)*600 // else every state in a file
	n := seed
	opts.Nonce = func() uint64 { n += 0x9e3779b97f4a7c15; return n }
	return &world{rng: rng, disk: m, opts: opts, size: map[uint64]int{}, place: map[uint64]Ref{}, possible: []outcome{{}}}
}

// watch has onImage called with a crash image at each operation.
func (w *world) watch() {
	w.disk.OnOp(func(op int) {
		if w.onImage == nil || w.fault != nil {
			return
		}
		for range max(w.chances, 1) {
			w.images++
			choice := disk.CrashChoice{Seed: w.rng.Uint64(), Fate: disk.Fate(w.rng.IntN(4)), Strict: w.rng.IntN(2) == 0, Process: w.rng.IntN(8) == 0}
			if err := w.onImage(w.disk.Crash(choice), choice, w.possible); err != nil {
				w.fault = fmt.Errorf("power cut at operation %d, %+v: %w", op, choice, err)
			}
		}
	})
}

// start opens the store and takes the model to what was found.
func (w *world) start() error {
	dir := w.dir
	if dir == nil {
		dir = w.disk
	}
	found, hints, s, err := recovered(dir, w.opts, w.possible, w.size)
	if err != nil {
		return err
	}
	w.s, w.possible, w.late = s, []outcome{found}, nil
	w.place = map[uint64]Ref{}
	for _, n := range found.live {
		w.place[n] = hints[n]
	}
	s.ClearLive()
	for _, ref := range w.place {
		s.Keep(ref)
	}
	return nil
}

// recovered opens a disk, and checks that it holds one of the possible outcomes,
// whole and with nothing added.
func recovered(m disk.FS, opts Options, possible []outcome, size map[uint64]int) (outcome, map[uint64]Ref, *Store, error) {
	fail := func(format string, args ...any) (outcome, map[uint64]Ref, *Store, error) {
		return outcome{}, nil, nil, fmt.Errorf(format, args...)
	}
	s, c, err := Open(m, opts)
	if err != nil {
		return outcome{}, nil, nil, err
	}
	meta := ""
	if c != nil {
		meta = string(c.Meta)
	}
	at := slices.IndexFunc(possible, func(o outcome) bool { return o.meta == meta })
	if at < 0 {
		return fail("recovered checkpoint %q, possible are %v", meta, metas(possible))
	}
	found := possible[at]
	if c != nil && string(c.State) != stateOf(found) {
		return fail("state of %q is %q", meta, c.State)
	}
	hints := map[uint64]Ref{}
	err = s.Hints(1, func(_ int, ref Ref, n int, hint []byte) error {
		id := hintKey(hint)
		if hints[id] != 0 {
			return fmt.Errorf("record %d twice: %v and %v", id, hints[id], ref)
		}
		if id >= found.next || n != size[id] {
			return fmt.Errorf("record %d of %d bytes at %v; checkpoint has records below %d, it has %d bytes", id, n, ref, found.next, size[id])
		}
		hints[id] = ref
		return nil
	})
	if err != nil {
		return outcome{}, nil, nil, err
	}
	for _, id := range found.live {
		if hints[id] == 0 {
			return fail("record %d of checkpoint %q is lost", id, meta)
		}
	}
	for id, ref := range hints {
		if err := readRight(s, ref, id, size[id]); err != nil {
			return outcome{}, nil, nil, err
		}
	}
	return found, hints, s, nil
}

func readRight(s *Store, ref Ref, id uint64, n int) error {
	got, err := s.Read(ref)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, worldRecord(id, n)) {
		return fmt.Errorf("record %d at %v has wrong bytes", id, ref)
	}
	return nil
}

// worldRecord is cheap to make.
func worldRecord(id uint64, n int) []byte {
	rec := make([]byte, n)
	binary.LittleEndian.PutUint64(rec, id)
	for i := 8; i < n; i++ {
		rec[i] = byte(id + uint64(i)*uint64(i)>>3)
	}
	return rec
}

func stateOf(o outcome) string { return "state" + o.meta + strings.Repeat("x", int(o.next)) }

func metas(os []outcome) (list []string) {
	for _, o := range os {
		list = append(list, o.meta)
	}
	return list
}

// errKilled ends a step whose process was killed.
var errKilled = errors.New("killed")

// run takes n random steps, or fewer if the store fails in a way that the
// faults injected do not explain.
func (w *world) run(n int) error {
	for range n {
		if err := w.step(); err != nil {
			return err
		}
		if err := w.s.checkInvariants(); err != nil {
			return err
		}
		if w.fault != nil {
			return w.fault
		}
	}
	return nil
}

func (w *world) step() error {
	switch k := w.rng.IntN(100); {
	case k < 55:
		return w.append()
	case k < 67:
		w.kill()
		return nil
	case k < 78:
		return w.commit()
	case k < 82:
		return w.cutLate()
	case k < 88:
		return w.reclaim()
	case k < 90:
		w.s.Roll()
		return nil
	case k < 96:
		return w.read()
	case k < 97:
		_, err := w.s.Scrub(8 << 10)
		return err
	default:
		return w.restart()
	}
}

func (w *world) append() error {
	for range 1 + w.rng.IntN(6) {
		n := 8 + w.rng.IntN(300)
		switch w.rng.IntN(12) {
		case 0:
			n = 1000 + w.rng.IntN(5000)
		case 1:
			if w.rng.IntN(4) == 0 {
				n = 8000 + w.rng.IntN(30000)
			}
		}
		id := w.next
		ref, err := w.s.Append(worldRecord(id, n))
		if err != nil {
			return err
		}
		w.size[id], w.place[id] = n, ref
		w.next++
	}
	return nil
}

// kill makes a few records dead.
func (w *world) kill() {
	for range 1 + w.rng.IntN(10) {
		if id, ok := w.any(); ok {
			w.s.Free(w.place[id])
			delete(w.place, id)
		}
	}
}

// any returns some live record; which one depends on the seed only.
func (w *world) any() (uint64, bool) {
	if w.next == 0 {
		return 0, false
	}
	for range 20 {
		id := w.rng.Uint64N(w.next)
		if w.place[id] != 0 {
			return id, true
		}
	}
	return 0, false
}

func (w *world) read() error {
	id, ok := w.any()
	if !ok {
		return nil
	}
	return readRight(w.s, w.place[id], id, w.size[id])
}

func (w *world) cut() (*Cut, outcome, error) {
	w.commits++
	o := outcome{meta: fmt.Sprintf("%d/%d", w.next, w.commits), next: w.next}
	for range w.rng.IntN(3) { // so that a manifest is often more than a sector
		o.meta += strings.Repeat(fmt.Sprint(" ", w.rng.Uint64()), 20)
	}
	for id := range w.place {
		o.live = append(o.live, id)
	}
	state := func(out io.Writer) error { _, err := io.WriteString(out, stateOf(o)); return err }
	c, err := w.s.Cut([]byte(o.meta), state)
	return c, o, err
}

func (w *world) commit() error {
	c, o, err := w.late, w.lateIs, error(nil)
	if w.late = nil; c == nil {
		if c, o, err = w.cut(); err != nil {
			return err
		}
	}
	w.possible = append(w.possible, o)
	if err := c.Commit(); err != nil {
		return err
	}
	w.possible = []outcome{o}
	return nil
}

func (w *world) cutLate() (err error) {
	w.late, w.lateIs, err = w.cut()
	return err
}

// reclaim has a Pin half of the time, and is interrupted sometimes.
func (w *world) reclaim() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	owner := &worldOwner{w: w, left: w.rng.IntN(30), cancel: cancel}
	_, err := w.s.Reclaim(ctx, Budget{Below: 0.3 + w.rng.Float64()*0.7}, owner)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

type worldOwner struct {
	w      *world
	left   int
	cancel func()
}

func (o *worldOwner) Live(batch []Candidate) {
	if o.left--; o.left == 0 {
		o.cancel()
	}
	for i, c := range batch {
		batch[i].Live = o.w.place[hintKey(c.Hint)] == c.Ref
	}
}

func (o *worldOwner) Moved(batch []Candidate) {
	for i, c := range batch {
		id := hintKey(c.Hint)
		if o.w.rng.IntN(10) == 0 && o.w.place[id] == c.Ref {
			o.w.s.Free(c.Ref)
			delete(o.w.place, id)
		}
		if batch[i].Live = o.w.place[id] == c.Ref; batch[i].Live {
			o.w.place[id] = c.New
		}
	}
}

// restart kills the process at some operation of the disk, which leaves what was
// written without a sync readable, and starts another.
func (w *world) restart() error {
	w.disk.InjectErr(disk.Fault{Kind: disk.OpAny, Nth: 1 + w.rng.IntN(20), Forever: true, Err: errKilled})
	var err error
	for i := 0; i < 5 && err == nil; i++ {
		if w.rng.IntN(2) == 0 {
			err = w.append()
		} else {
			err = w.commit()
		}
	}
	if err != nil && !errors.Is(err, errKilled) {
		return err
	}
	w.disk.ClearErrs()
	return w.start()
}

func isENOSPC(err error) bool { return errors.Is(err, ErrNoSpace) || errors.Is(err, syscall.ENOSPC) }
