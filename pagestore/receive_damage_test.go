package pagestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"quire/disk"

	"golang.org/x/sys/unix"
)

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
