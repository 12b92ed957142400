package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"testing"

	"golang.org/x/sys/unix"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func fill(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

// TestMemUnsynced: what was not synced may or may not be there, sector by sector.
func TestMemUnsynced(t *testing.T) {
	m := NewMem(1)
	f, err := m.Create("a", 4096)
	must(t, err)
	must(t, f.WriteAt(fill(2048, 1), 0))
	must(t, f.Sync())
	must(t, f.WriteAt(fill(4096, 2), 0))
	var old, new_, torn int
	for seed := uint64(0); seed < 300; seed++ {
		c := m.Crash(CrashChoice{Seed: seed})
		p, err := c.ReadFile("a")
		must(t, err)
		was := append(fill(2048, 1), fill(2048, 0)...)
		for s := 0; s < 4096; s += sector {
			if k := p[s : s+sector]; !bytes.Equal(k, was[s:s+sector]) && !bytes.Equal(k, fill(sector, 2)) {
				t.Fatalf("seed %d: sector at %d is neither old nor new", seed, s)
			}
		}
		switch {
		case bytes.Equal(p, was):
			old++
		case bytes.Equal(p, fill(4096, 2)):
			new_++
		default:
			torn++
		}
	}
	if old < 50 || new_ < 50 || torn < 50 {
		t.Fatalf("old %d, new %d, torn %d of 300", old, new_, torn)
	}
	if p, _ := m.ReadFile("a"); !bytes.Equal(p, fill(4096, 2)) {
		t.Fatal("an image changed the disk it was taken from")
	}
}

// TestMemStop enumerates the operations of Create and Rename.
func TestMemStop(t *testing.T) {
	work := func(m *Mem) error {
		f, err := m.Create("dir/new.tmp", 4096)
		if err != nil {
			return err
		}
		if err := f.WriteAt(fill(100, 7), 0); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		return m.Rename("dir/new.tmp", "dir/new")
	}
	total := NewMem(0)
	must(t, work(total))
	if total.Ops() != 8 {
		t.Fatalf("%d operations", total.Ops())
	}
	for stop := 1; stop <= total.Ops(); stop++ {
		for seed := range uint64(50) {
			m := NewMem(seed)
			m.StopAfter(stop)
			if err := work(m); !errors.Is(err, ErrCrashed) {
				t.Fatalf("stop %d: %v", stop, err)
			}
			c := m.Crash(CrashChoice{Seed: seed, Strict: seed%2 == 1})
			_, err1 := c.ReadFile("dir/new.tmp")
			p, err2 := c.ReadFile("dir/new")
			if err1 == nil && err2 == nil {
				t.Fatal("both names")
			}
			if stop > 4 && err1 != nil && err2 != nil {
				t.Fatalf("stop %d seed %d: name lost after Create", stop, seed)
			}
			if err2 == nil && !bytes.Equal(p[:100], fill(100, 7)) {
				t.Fatal("renamed before synced")
			}
		}
	}
}

func TestMemFaults(t *testing.T) {
	m := NewMem(3)
	f, err := m.Create("a", 0)
	must(t, err)
	m.InjectErr(Fault{Kind: OpWrite, Nth: 2, Err: unix.ENOSPC})
	m.InjectErr(Fault{Kind: OpSync, Nth: 1, Err: unix.EIO})
	must(t, f.WriteAt(fill(8192, 1), 0))
	err = f.WriteAt(fill(10, 2), 0)
	var de *Error
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &de) || de.Name != "a" || de.Op != "write" {
		t.Fatal(err)
	}
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	must(t, f.Sync()) // reports success …
	lost := 0
	for seed := range uint64(20) {
		if p, _ := m.Crash(CrashChoice{Seed: seed}).ReadFile("a"); !bytes.Equal(p, fill(8192, 1)) {
			lost++
		}
	}
	m2 := NewMem(4)
	g, err := m2.Create("b", 0)
	must(t, err)
	m2.InjectErr(Fault{Kind: OpWrite, Nth: 1, Forever: true, Err: io.ErrShortWrite})
	for range 3 {
		if err := g.WriteAt(fill(4096, 1), 0); !errors.Is(err, io.ErrShortWrite) {
			t.Fatal(err)
		}
	}
	_, err = m.Create("a", 0)
	if !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	t.Logf("after a failed sync %d of 20 crashes lost data", lost)
}

func TestMemQueue(t *testing.T) {
	m := NewMem(5)
	_, err := m.Create("a", 64<<10)
	must(t, err)
	f, err := m.Open("a", Direct)
	must(t, err)
	q, err := m.NewQueue(4)
	must(t, err)
	buf := AlignedBuf(Align)
	defer FreeBuf(buf)
	for i := range 4 {
		must(t, q.Submit(Write{File: f, Buf: buf, Off: int64(i) * Align, Token: uint64(i)}))
	}
	if err := q.Submit(Write{File: f, Buf: buf, Off: 5 * Align}); !errors.Is(err, ErrQueueFull) {
		t.Fatal(err)
	}
	if err := q.Submit(Write{File: f, Buf: buf[:100]}); !errors.Is(err, ErrQueueFull) && !errors.Is(err, ErrMisaligned) {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	var done [8]Completion
	for len(seen) < 4 {
		n, err := q.Wait(done[:])
		must(t, err)
		for _, c := range done[:n] {
			must(t, c.Err)
			seen[c.Token] = true
		}
	}
	must(t, q.Close())
	if _, err := q.Wait(done[:]); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// TestMemSupersede: an older write that was not durable cannot come back over a
// newer one that is; another process sees all, and a power cut after it takes
// away what was not synced.
func TestMemSupersede(t *testing.T) {
	m := NewMem(6)
	f, err := m.Create("a", 3*Align)
	must(t, err)
	must(t, f.WriteAt(fill(3*Align, 1), 0))
	d, err := m.Open("a", Direct)
	must(t, err)
	buf := AlignedBuf(Align)
	defer FreeBuf(buf)
	copy(buf, fill(Align, 2))
	must(t, d.WriteAt(buf, Align))
	for seed := range uint64(30) {
		p, err := m.Crash(CrashChoice{Seed: seed}).ReadFile("a")
		must(t, err)
		if !bytes.Equal(p[Align:2*Align], fill(Align, 2)) {
			t.Fatal("the durable write was undone")
		}
	}
	k := m.Crash(CrashChoice{Process: true})
	p, err := k.ReadFile("a")
	must(t, err)
	if !bytes.Equal(p[:Align], fill(Align, 1)) {
		t.Fatal("another process does not see what was written")
	}
	p, err = k.Crash(CrashChoice{Fate: DropAll}).ReadFile("a")
	must(t, err)
	if !bytes.Equal(p[:Align], fill(Align, 0)) {
		t.Fatal("it became durable by itself")
	}
}

// TestMemMisuse: the queue notices writes that overlap and buffers that change.
func TestMemMisuse(t *testing.T) {
	for name, misuse := range map[string]func(q Queue, f File, buf []byte){
		"overlap": func(q Queue, f File, buf []byte) { _ = q.Submit(Write{File: f, Buf: buf}) },
		"change": func(q Queue, _ File, buf []byte) {
			buf[5]++
			_, _ = q.Wait(make([]Completion, 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := NewMem(7)
			_, err := m.Create("a", Align)
			must(t, err)
			f, err := m.Open("a", Direct)
			must(t, err)
			q, err := m.NewQueue(2)
			must(t, err)
			buf := AlignedBuf(Align)
			must(t, q.Submit(Write{File: f, Buf: buf}))
			defer func() {
				if recover() == nil {
					t.Fatal("went unnoticed")
				}
			}()
			misuse(q, f, buf)
		})
	}
}

// TestMemLink: after a crash a file of two names is one file, with whichever
// names were durable.
func TestMemLink(t *testing.T) {
	m := NewMem(1)
	f, err := m.Create("a", 4096)
	must(t, err)
	must(t, m.Link("a", "b"))
	must(t, f.WriteAt(fill(4096, 1), 0))
	for seed := range uint64(50) {
		for _, c := range []*Mem{m.Crash(CrashChoice{Seed: seed}), m.Crash(CrashChoice{Seed: seed, Process: true}), m.Clone(seed)} {
			p, err := c.ReadFile("a")
			must(t, err)
			q, err := c.ReadFile("b")
			must(t, err)
			if !bytes.Equal(p, q) {
				t.Fatalf("seed %d: two files", seed)
			}
		}
	}
	m.StopAfter(m.Ops() + 1)
	if err := m.Link("a", "c"); !errors.Is(err, ErrCrashed) {
		t.Fatal(err)
	}
	there := 0
	for seed := range uint64(50) {
		if _, err := m.Crash(CrashChoice{Seed: seed, Strict: true}).ReadFile("c"); err == nil {
			there++
		}
	}
	if there == 0 || there == 50 {
		t.Fatalf("%d of 50 have the name that was being entered", there)
	}
}
