package pagestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"quire/disk"
)

// source is a world with an export of its newest checkpoint.
type source struct {
	*world
	x *Export
	o outcome
}

func newSource(seed uint64, steps int) (*source, error) {
	s := &source{world: newWorld(seed, disk.NewMem(seed))}
	if err := s.start(); err != nil {
		return nil, err
	}
	return s, s.advance(steps)
}

// advance works on and exports the next checkpoint.
func (s *source) advance(steps int) error {
	err := s.run(steps)
	if err == nil {
		err = s.append()
	}
	if err == nil {
		if s.rng.IntN(2) == 0 {
			s.s.Roll()
		}
		err = s.commit()
	}
	if err != nil {
		return err
	}
	if s.x != nil {
		s.x.Release()
	}
	x, _ := s.s.TryExport()
	if x == nil {
		return errors.New("no export")
	}
	s.x, s.o = x, s.possible[0]
	return nil
}

// wire is the way to a peer.
type wire struct {
	x       *Export
	rng     *rand.Rand
	fetched int64 // bytes
	left    int   // calls until it breaks; negative: never
	harm    func(blob uint32, p []byte, off int64)
}

var errBroken = errors.New("connection broken")

func (w *wire) fetch(blob uint32, p []byte, off int64) (int, error) {
	if w.left == 0 {
		return 0, errBroken
	}
	w.left--
	if w.rng != nil && w.rng.IntN(3) == 0 {
		p = p[:1+w.rng.IntN(len(p))]
	}
	n, err := w.x.ReadAt(blob, p, off)
	if w.harm != nil {
		w.harm(blob, p[:n], off)
	}
	w.fetched += int64(n)
	return n, err
}

// receive takes an export over as the current store of a disk.
func receive(m disk.FS, w *wire, o outcome) error {
	return receiveThen(m, w, o, func() {})
}

// receiveThen calls installed when the store has been installed durably.
func receiveThen(m disk.FS, w *wire, o outcome, installed func()) error {
	h, err := OpenHome(m)
	if err != nil {
		return err
	}
	h.chunkBytes = 4096
	in, err := h.Receive(w.x.Manifest())
	if err != nil {
		return err
	}
	if string(in.Meta()) != o.meta {
		return fmt.Errorf("meta %q", in.Meta())
	}
	if err := in.Fetch(context.Background(), w.fetch, in.Meta()); err != nil {
		return err
	}
	if err := h.Install(in); err != nil {
		return err
	}
	installed()
	return h.RemoveOlder()
}

// holds checks that the current store of a disk is o, whole, and nothing else is
// on the disk, but what is still being received.
func holds(m *disk.Mem, opts Options, size map[uint64]int, possible ...outcome) (outcome, error) {
	h, err := OpenHome(m)
	if err != nil {
		return outcome{}, err
	}
	found, _, s, err := recovered(h.Store(), opts, possible, size)
	if err != nil {
		return outcome{}, err
	}
	defer s.Close()
	left := map[string]bool{slotNames[0]: true, slotNames[1]: true, s.committing.last.state.fileName(): true}
	for _, seg := range s.list() {
		left[seg.name] = true
	}
	dirs := []string{storeDir(h.mu.current)}
	records := map[string]bool{recordName(recordCurrent, h.mu.current): true}
	for _, in := range h.Incoming() {
		dirs = append(dirs, storeDir(in.number))
		records[recordName(recordIncoming, in.number)] = true
	}
	for n := range h.mu.highest + 2 {
		dir := storeDir(n)
		infos, err := m.List(dir)
		if err != nil {
			return found, err
		}
		for _, f := range infos {
			switch {
			case dir == "" && records[f.Name]:
			case dir == dirs[0] && left[f.Name]:
			case slices.Contains(dirs[1:], dir):
			default:
				return found, fmt.Errorf("%q is left in %q", f.Name, dir)
			}
		}
	}
	return found, nil
}

// TestReceive copies random stores, again and again while they go on, over a
// connection that breaks, to a disk that has a store of its own; and the copy
// goes on, and is copied itself.
func TestReceive(t *testing.T) {
	eachSeed(t, 150, func(seed uint64) error {
		src, err := newSource(seed, 40)
		if err != nil {
			return err
		}
		to, err := newSource(seed+1<<32, 20)
		if err != nil {
			return err
		}
		to.s.Close()
		m := to.disk
		m.OnOp(nil)
		for round := range 3 {
			w := &wire{x: src.x, rng: src.rng, left: src.rng.IntN(30)}
			for err = errBroken; errors.Is(err, errBroken); {
				if src.rng.IntN(4) == 0 { // the source goes on, and its files go
					if err := errors.Join(src.run(3), src.commit()); err != nil {
						return err
					}
				}
				err = receive(m, w, src.o)
				w.left = src.rng.IntN(30)
			}
			if err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			if _, err := holds(m, to.opts, src.size, src.o); err != nil {
				return fmt.Errorf("round %d: %w", round, err)
			}
			if round == 2 {
				return onwards(m, to.opts, src.o, src.size)
			}
			if err := src.advance(20); err != nil {
				return err
			}
		}
		return nil
	})
}

// onwards works with a received store, as its owner will, and copies it to a
// third disk.
func onwards(m *disk.Mem, opts Options, o outcome, size map[uint64]int) error {
	h, err := OpenHome(m)
	if err != nil {
		return err
	}
	w := &source{world: newWorld(7, m)}
	w.dir, w.opts, w.size, w.possible, w.next = h.Store(), opts, size, []outcome{o}, o.next
	if err := w.start(); err != nil {
		return err
	}
	if err := w.advance(30); err != nil {
		return err
	}
	third := disk.NewMem(9)
	if err := receive(third, &wire{x: w.x, left: -1}, w.o); err != nil {
		return err
	}
	_, err = holds(third, opts, size, w.o)
	return err
}

// TestReceiveSharesSegments: what lies here already is not fetched again.
func TestReceiveSharesSegments(t *testing.T) {
	opts := testOptions()
	opts.SegmentBytes, opts.PageBytes = 16<<10, 4<<10
	s, _ := mustOpen(t, disk.NewMem(1), opts)
	fill := func(from, to uint64) {
		for id := from; id < to; id++ {
			if _, err := s.Append(worldRecord(id, 1000)); err != nil {
				t.Fatal(err)
			}
		}
		s.Roll()
	}
	export := func(meta string) *Export {
		mustCommit(t, s, meta, "state of "+meta)
		x, _ := s.TryExport()
		if x == nil {
			t.Fatal("no export")
		}
		return x
	}
	fill(0, 200)
	first := export("first")
	fill(200, 240)
	second := export("second")
	added := second.Bytes() - first.Bytes()
	sums := int64(len(second.manifest.segments)+1) * sumBytes

	// From a store that was installed.
	m := disk.NewMem(2)
	w := &wire{x: first, left: -1}
	if err := receive(m, w, outcome{meta: "first"}); err != nil || w.fetched != first.Bytes() {
		t.Fatalf("%d bytes of %d, %v", w.fetched, first.Bytes(), err)
	}
	w = &wire{x: second, left: -1}
	if err := receive(m, w, outcome{meta: "second"}); err != nil || w.fetched > added+sums {
		t.Fatalf("%d bytes of %d, %v", w.fetched, added+sums, err)
	}

	// From one that was received in part, by a process that is gone.
	m = disk.NewMem(3)
	w = &wire{x: first, left: 30}
	if err := receive(m, w, outcome{meta: "first"}); !errors.Is(err, errBroken) {
		t.Fatal(err)
	}
	had := w.fetched
	w = &wire{x: second, left: -1}
	if err := receive(m.Clone(4), w, outcome{meta: "second"}); err != nil || w.fetched > second.Bytes()-had+sums+4096 {
		t.Fatalf("%d bytes, %d of %d were there, %v", w.fetched, had, second.Bytes(), err)
	}

	// From one that is whole and stays until it is installed.
	h, err := OpenHome(m)
	if err != nil {
		t.Fatal(err)
	}
	var ins []*Incoming
	for _, x := range []*Export{first, second} {
		w := &wire{x: x, left: -1}
		in, err := h.Receive(x.Manifest())
		if err == nil {
			err = in.Fetch(context.Background(), w.fetch, in.Meta())
		}
		if err != nil {
			t.Fatal(err)
		}
		if x == second && w.fetched > added+sums {
			t.Fatalf("%d bytes of %d", w.fetched, added+sums)
		}
		ins = append(ins, in)
	}
	for i, in := range ins {
		again, err := h.Receive(in.raw)
		if err != nil || again != in {
			t.Fatalf("%v instead of %v, %v", again, in, err)
		}
		if err := errors.Join(h.Install(in), h.RemoveOlder()); err != nil {
			t.Fatal(err)
		}
		got, cp, err := Open(in.FS(), opts)
		if err != nil || string(cp.Meta) != []string{"first", "second"}[i] {
			t.Fatalf("%+v, %v", cp, err)
		}
		if err := errors.Join(got.Close(), Check(in.FS())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReceiveResumesAtEachChunk breaks the connection again and again: after
// every chunk within a process, every few chunks between processes, because what
// is a part of a page counts only for the process that has fetched it.
func TestReceiveResumesAtEachChunk(t *testing.T) {
	src, err := newSource(5, 60)
	if err != nil {
		t.Fatal(err)
	}
	bound := 2*src.x.Bytes() + int64(len(src.x.manifest.segments))*sumBytes*2
	for _, crash := range []disk.CrashChoice{{Process: true}, {Fate: disk.DropAll}, {Strict: true}} {
		m := disk.NewMem(1)
		total := int64(0)
		for tries := 0; ; tries++ {
			w := &wire{x: src.x, left: 20}
			err := receive(m, w, src.o)
			total += w.fetched
			if err == nil {
				break
			}
			if !errors.Is(err, errBroken) || tries > 10000 {
				t.Fatal(err)
			}
			crash.Seed = uint64(tries)
			m = m.Crash(crash)
		}
		if _, err := holds(m, src.opts, src.size, src.o); err != nil {
			t.Fatal(err)
		}
		if crash.Process && total > bound {
			t.Fatalf("%d bytes fetched for %d", total, src.x.Bytes())
		}
	}
	m := disk.NewMem(1)
	h, err := OpenHome(m)
	if err != nil {
		t.Fatal(err)
	}
	h.chunkBytes = 4096
	total := int64(0)
	for err = errBroken; errors.Is(err, errBroken); {
		w := &wire{x: src.x, left: 1}
		if src.x.manifest.state.fileName() != "" {
			w.left += 1 + int(src.x.manifest.state.bytes/4096) // it comes as a whole
		}
		var in *Incoming
		if in, err = h.Receive(src.x.Manifest()); err == nil {
			err = in.Fetch(context.Background(), w.fetch, in.Meta())
		}
		total += w.fetched
	}
	if err != nil || total > bound {
		t.Fatalf("%d bytes fetched for %d, %v", total, src.x.Bytes(), err)
	}
}

// TestExportOutlivesReclaim: files of a checkpoint that has been replaced stay
// readable for an export, and go with it.
func TestExportOutlivesReclaim(t *testing.T) {
	m := disk.NewMem(1)
	opts := testOptions()
	opts.SegmentBytes, opts.PageBytes = 16<<10, 4<<10
	s, _ := mustOpen(t, m, opts)
	owner := &mapOwner{places: map[uint64]Ref{}}
	for id := range uint64(100) {
		ref, err := s.Append(worldRecord(id, 500))
		if err != nil {
			t.Fatal(err)
		}
		owner.places[id] = ref
	}
	s.Roll()
	mustCommit(t, s, "meta", strings.Repeat("state", 20000))
	x, _ := s.TryExport()
	if x == nil {
		t.Fatal("no export")
	}
	for id := range uint64(95) {
		s.Free(owner.places[id])
		delete(owner.places, id)
	}
	for range 3 {
		if _, err := s.Reclaim(context.Background(), Budget{}, owner); err != nil {
			t.Fatal(err)
		}
		s.Roll()
		mustCommit(t, s, "later", strings.Repeat("other", 20000))
	}
	if _, err := m.ReadFile(segmentName(1)); err == nil {
		t.Fatal("the file is still there")
	}
	if err := receive(disk.NewMem(2), &wire{x: x, left: -1}, outcome{meta: "meta"}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := receive(disk.NewMem(2), &wire{x: x, left: -1}, outcome{meta: "meta"}); err != nil {
		t.Fatal(err)
	}
	x.Release()
	x.Release()
	if err := receive(disk.NewMem(2), &wire{x: x, left: -1}, outcome{meta: "meta"}); !errors.Is(err, ErrGone) {
		t.Fatal(err)
	}
	if x, _ := s.TryExport(); x != nil {
		t.Fatal("a closed store exports")
	}
}

// TestExportReadsLikeAFile compares reads at random places with the files.
func TestExportReadsLikeAFile(t *testing.T) {
	src, err := newSource(11, 40)
	if err != nil {
		t.Fatal(err)
	}
	for blob, n := range src.x.manifest.blobs() {
		whole := make([]byte, n)
		if k, err := src.x.ReadAt(uint32(blob), whole, 0); int64(k) != n || err != nil {
			t.Fatal(k, err)
		}
		for range 200 {
			off, size := src.rng.Int64N(n+10), src.rng.IntN(5000)
			p := make([]byte, size)
			k, err := src.x.ReadAt(uint32(blob), p, off)
			want := whole[min(off, n):min(off+int64(size), n)]
			if !bytes.Equal(p[:k], want) || (k < size) != (err == io.EOF) {
				t.Fatalf("blob %d, %d bytes at %d of %d: %d, %v", blob, size, off, n, k, err)
			}
		}
	}
	if _, err := src.x.ReadAt(uint32(len(src.x.manifest.blobs())), nil, 0); err == nil {
		t.Fatal("one blob too many")
	}
}
