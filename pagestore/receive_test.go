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

	"golang.org/x/sys/unix"
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

// TestReceivePowerCut cuts the power at every operation of the receiving disk,
// and in some of the images again while it goes on. It finds the old store or,
// from the moment of Install on, the new one; and can go on to receive.
func TestReceivePowerCut(t *testing.T) {
	total := make(chan int, 1)
	total <- 0
	eachSeed(t, 16, func(seed uint64) error {
		src, err := newSource(seed, 15)
		if err != nil {
			return err
		}
		to, err := newSource(seed+1<<32, 8)
		if err != nil {
			return err
		}
		to.s.Close()
		to.disk.OnOp(nil)
		c := &receiveCuts{src: src, to: to}
		err = c.run(to.disk, 2)
		total <- c.images + <-total
		return err
	})
	t.Logf("%d images of cut power", <-total)
}

type receiveCuts struct {
	src, to *source
	images  int
}

// run receives on a disk, and looks at the power cuts meanwhile.
func (c *receiveCuts) run(m *disk.Mem, depth int) error {
	rng := c.src.rng
	var fault error
	installed := false
	m.OnOp(func(op int) {
		if fault != nil {
			return
		}
		c.images++
		choice := disk.CrashChoice{Seed: rng.Uint64(), Fate: disk.Fate(rng.IntN(4)), Strict: rng.IntN(2) == 0, Process: rng.IntN(8) == 0}
		img := m.Crash(choice)
		err := c.recovers(img.Clone(1), installed)
		if err == nil && depth > 0 && (rng.IntN(20) == 0 || choice.Process && rng.IntN(2) == 0) {
			err = c.run(img, depth-1)
		}
		if err != nil {
			fault = fmt.Errorf("power cut at operation %d, %+v: %w", op, choice, err)
		}
	})
	err := receiveThen(m, &wire{x: c.src.x, left: -1}, c.src.o, func() { installed = true })
	m.OnOp(nil)
	if err == nil {
		_, err = holds(m, c.to.opts, c.src.size, c.src.o)
	}
	return errors.Join(fault, err)
}

// recovers checks that an image holds the new store, or the old one if that
// is still possible.
func (c *receiveCuts) recovers(img *disk.Mem, installed bool) error {
	_, err := holds(img, c.to.opts, c.src.size, c.src.o)
	if err == nil || installed {
		return err
	}
	if _, old := holds(img, c.to.opts, c.to.size, c.to.o); old != nil {
		return errors.Join(err, old)
	}
	return nil
}

// TestReceiveDamage flips a bit of every blob, byte for byte: on the way once, on
// the way always, and at the source. Only the first may lead to a store, and it
// has to be the right one.
func TestReceiveDamage(t *testing.T) {
	src := stateFileSource(t, 3)
	rng := rand.New(rand.NewPCG(1, 2))
	flip := func(at uint32, where int64, times *int) func(uint32, []byte, int64) {
		return func(blob uint32, p []byte, off int64) {
			if blob == at && where >= off && where < off+int64(len(p)) && *times > 0 {
				*times--
				p[where-off] ^= 1 << rng.IntN(8)
			}
		}
	}
	cases := 0
	for blob, n := range src.x.manifest.blobs() {
		for off := int64(0); off < n; off += 1 + rng.Int64N(40) {
			cases++
			once, ever := 1, 1<<30
			m := disk.NewMem(1)
			w := &wire{x: src.x, left: -1, harm: flip(uint32(blob), off, &once)}
			err := receive(m, w, src.o)
			var bad *CorruptError
			if err != nil && !errors.As(err, &bad) {
				t.Fatalf("byte %d of blob %d: %v", off, blob, err)
			}
			if err != nil { // the state is not fetched twice, a segment is
				err = receive(m, w, src.o)
			}
			if err == nil {
				_, err = holds(m, src.opts, src.size, src.o)
			}
			if err != nil {
				t.Fatalf("byte %d of blob %d, flipped once: %v", off, blob, err)
			}
			w = &wire{x: src.x, left: -1, harm: flip(uint32(blob), off, &ever)}
			if err := receive(disk.NewMem(1), w, src.o); !errors.As(err, &bad) || bad.File == "" {
				t.Fatalf("byte %d of blob %d, always flipped: %v", off, blob, err)
			}
		}
	}
	t.Logf("%d places", cases)
}

// TestReceiveFromDamagedSource flips bits in the source's files.
func TestReceiveFromDamagedSource(t *testing.T) {
	src := stateFileSource(t, 4)
	rng := rand.New(rand.NewPCG(1, 2))
	cases := 0
	for i, e := range src.x.manifest.segments {
		for off := int64(0); off < e.fileEnd(); off += 1 + rng.Int64N(60) {
			cases++
			bit := off*8 + rng.Int64N(8)
			src.x.segs[i].summed = 0
			src.disk.FlipBit(segmentName(e.id), bit)
			err := receive(disk.NewMem(1), &wire{x: src.x, left: -1}, src.o)
			src.disk.FlipBit(segmentName(e.id), bit)
			var bad *CorruptError
			if !errors.As(err, &bad) || bad.File != segmentName(e.id) || bad.Off > off {
				t.Fatalf("bit %d of %s: %v", bit, segmentName(e.id), err)
			}
		}
	}
	src.disk.FlipBit(src.x.manifest.state.fileName(), stateHeadBytes*8+3)
	var bad *CorruptError
	if err := receive(disk.NewMem(1), &wire{x: src.x, left: -1}, src.o); !errors.As(err, &bad) {
		t.Fatal(err)
	}
	t.Logf("%d places", cases)
}

// stateFileSource is a source with a state too large for the manifest.
func stateFileSource(t *testing.T, seed uint64) *source {
	t.Helper()
	for ; ; seed += 100 {
		src, err := newSource(seed, 30)
		if err != nil {
			t.Fatal(err)
		}
		if src.x.manifest.state.fileName() != "" {
			return src
		}
	}
}

// TestContradictingManifest: pages that are sound, but not what the manifest says.
func TestContradictingManifest(t *testing.T) {
	src, err := newSource(4, 60)
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range src.x.manifest.segments {
		f, at := src.x.segs[i].file.Load(), src.x.segs[i].at(0)
		if _, err := sumPages(f, at, e); err != nil {
			t.Fatal(err)
		}
		fewer, shorter, longer := e, e, e
		fewer.records--
		shorter.end -= unitBytes
		longer.end += unitBytes
		for _, wrong := range []segmentEntry{fewer, shorter, longer} {
			var bad *CorruptError
			if _, err := sumPages(f, at, wrong); !errors.As(err, &bad) {
				t.Errorf("%+v instead of %+v: %v", wrong, e, err)
			}
		}
	}
}

// TestUnsealedIsNotShared: two stores that are both received share a file only if
// neither will write to it. Here the first, once installed, appends a footer, and
// the second, once opened, would cut that off again while the first still counts.
func TestUnsealedIsNotShared(t *testing.T) {
	src, _ := mustOpen(t, disk.NewMem(1), testOptions())
	for id := range uint64(50) {
		if _, err := src.Append(worldRecord(id, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	m := disk.NewMem(2)
	h, err := OpenHome(m)
	if err != nil {
		t.Fatal(err)
	}
	var ins []*Incoming
	for _, meta := range []string{"first", "second"} {
		mustCommit(t, src, meta, "")
		x, _ := src.TryExport()
		if x == nil || x.manifest.segments[0].footerEnd != 0 {
			t.Fatalf("export %+v", x)
		}
		in, err := h.Receive(x.Manifest())
		if err == nil {
			err = in.Fetch(context.Background(), x.ReadAt, in.Meta())
		}
		if err != nil {
			t.Fatal(err)
		}
		ins = append(ins, in)
	}
	if err := h.Install(ins[0]); err != nil {
		t.Fatal(err)
	}
	opts := testOptions()
	opts.Inline = true
	first, _ := mustOpen(t, h.Store(), opts)
	mustCommit(t, first, "first, sealed", "")
	if first.list()[0].footerEnd == 0 {
		t.Fatal("not sealed")
	}
	second, _ := mustOpen(t, ins[1].FS(), opts)
	second.Close()
	first.Close()
	if err := Check(h.Store()); err != nil {
		t.Fatal(err)
	}
}

// TestReceiveTruncated ends a blob early, at many lengths.
func TestReceiveTruncated(t *testing.T) {
	src, err := newSource(6, 30)
	if err != nil {
		t.Fatal(err)
	}
	for blob, n := range src.x.manifest.blobs() {
		for end := int64(0); end < n; end += max(n/40, 1) {
			w := &wire{x: src.x, left: -1}
			cut := func(b uint32, p []byte, off int64) (int, error) {
				if b == uint32(blob) && off+int64(len(p)) > end {
					k, _ := w.fetch(b, p[:max(0, min(end-off, int64(len(p))))], off)
					return k, io.EOF
				}
				return w.fetch(b, p, off)
			}
			h, err := OpenHome(disk.NewMem(1))
			if err != nil {
				t.Fatal(err)
			}
			in, err := h.Receive(src.x.Manifest())
			if err == nil {
				err = in.Fetch(context.Background(), cut, in.Meta())
			}
			var failed *FetchError
			if !errors.As(err, &failed) || !errors.Is(err, io.ErrUnexpectedEOF) || in.Whole() {
				t.Fatalf("blob %d ended at %d of %d: %v", blob, end, n, err)
			}
		}
	}
}

// TestReceiveManifestDamage: no damaged or foreign manifest is begun with.
func TestReceiveManifestDamage(t *testing.T) {
	src, err := newSource(6, 10)
	if err != nil {
		t.Fatal(err)
	}
	h, err := OpenHome(disk.NewMem(1))
	if err != nil {
		t.Fatal(err)
	}
	raw := src.x.Manifest()
	for i := range len(raw) * 8 {
		b := bytes.Clone(raw)
		b[i/8] ^= 1 << (i % 8)
		if _, err := h.Receive(b); err == nil {
			t.Fatalf("bit %d flipped: accepted", i)
		}
	}
	for i := range raw {
		if _, err := h.Receive(raw[:i]); err == nil {
			t.Fatalf("cut to %d bytes: accepted", i)
		}
	}
	if n := len(h.Incoming()); n != 0 {
		t.Fatalf("%d begun", n)
	}
}

// TestReceiveDiskErrors fails every operation of the receiving disk, once and
// from then on. What comes of it is an error of the transfer; the current store
// is as it was, and the transfer can be tried again.
func TestReceiveDiskErrors(t *testing.T) {
	src, err := newSource(8, 25)
	if err != nil {
		t.Fatal(err)
	}
	to, err := newSource(9, 10)
	if err != nil {
		t.Fatal(err)
	}
	to.s.Close()
	base := to.disk
	base.OnOp(nil)
	for _, errno := range []error{unix.EIO, unix.ENOSPC} {
		for n := 1; ; n++ {
			m := base.Clone(uint64(n))
			m.InjectErr(disk.Fault{Kind: disk.OpAny, Nth: n, Forever: n%2 == 0, Err: errno})
			err := fetchOnly(m, src)
			if m.Faulted() == 0 {
				break
			}
			m.ClearErrs()
			var failed *FetchError
			if err != nil && (!errors.Is(err, errno) || errors.As(err, &failed)) {
				t.Fatalf("operation %d, %v: %v", n, errno, err)
			}
			if _, err := holds(m.Clone(1), to.opts, to.size, to.o); err != nil {
				t.Fatalf("operation %d, %v: %v", n, errno, err)
			}
			if err := receive(m, &wire{x: src.x, left: -1}, src.o); err != nil {
				t.Fatalf("operation %d, %v, again: %v", n, errno, err)
			}
			img := m.Crash(disk.CrashChoice{Seed: uint64(n), Fate: disk.DropAll})
			if _, err := holds(img, to.opts, src.size, src.o); err != nil {
				t.Fatalf("operation %d, %v, and a power cut: %v", n, errno, err)
			}
		}
	}
}

// fetchOnly receives and does not install.
func fetchOnly(m *disk.Mem, src *source) error {
	h, err := OpenHome(m)
	if err != nil {
		return err
	}
	h.chunkBytes = 4096
	in, err := h.Receive(src.x.Manifest())
	if err != nil {
		return err
	}
	w := &wire{x: src.x, left: -1}
	err = in.Fetch(context.Background(), w.fetch, in.Meta())
	if n := len(h.Incoming()); err != nil && n != 0 {
		return fmt.Errorf("%d not discarded after %w", n, err)
	}
	return err
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
