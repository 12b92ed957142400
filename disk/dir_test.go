package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func openDir(t testing.TB, opts Options) *Dir {
	t.Helper()
	d, err := OpenDir(filepath.Join(t.TempDir(), "x", "y"), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// TestFS runs the same calls against both implementations.
func TestFS(t *testing.T) {
	t.Run("dir", func(t *testing.T) { testFS(t, openDir(t, Options{})) })
	t.Run("mem", func(t *testing.T) { testFS(t, NewMem(1)) })
	t.Run("sub", func(t *testing.T) { testFS(t, Sub(Sub(openDir(t, Options{}), "a/b"), "c")) })
	t.Run("memsub", func(t *testing.T) { testFS(t, Sub(NewMem(1), "a")) })
}

func testFS(t *testing.T, fsys FS) {
	list, err := fsys.List("")
	must(t, err)
	if len(list) != 0 {
		t.Fatal(list)
	}
	list, err = fsys.List("nowhere")
	must(t, err)
	if len(list) != 0 {
		t.Fatal(list)
	}
	f, err := fsys.Create("sub/b", 3<<20+100)
	must(t, err)
	p, err := io.ReadAll(io.NewSectionReader(f, 0, 4<<20))
	must(t, err)
	if !bytes.Equal(p, make([]byte, 3<<20+100)) {
		t.Fatalf("zero fill: %d bytes", len(p))
	}
	must(t, f.WriteAt([]byte("hello"), 1<<20))
	must(t, f.Sync())
	must(t, f.Truncate(1<<20+3))
	must(t, f.Close())
	if err := f.Close(); !errors.Is(err, fs.ErrClosed) {
		t.Fatal(err)
	}
	if _, err := fsys.Create("sub/b", 0); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	for _, bad := range []string{"", ".", "../x", "/x", "a/../b", "a//b"} {
		if _, err := fsys.Create(bad, 0); !errors.Is(err, ErrBadName) {
			t.Fatalf("%q: %v", bad, err)
		}
	}
	must(t, fsys.Rename("sub/b", "sub/a"))
	g, err := fsys.Open("sub/a", ReadOnly)
	must(t, err)
	var b [10]byte
	n, err := g.ReadAt(b[:], 1<<20)
	if n != 3 || err != io.EOF || string(b[:3]) != "hel" {
		t.Fatal(n, err)
	}
	must(t, fsys.Remove("sub/a"))
	if n, _ := g.ReadAt(b[:], 1<<20); n != 3 {
		t.Fatal("an open handle must stay readable")
	}
	if err := fsys.Remove("sub/a"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if _, err := fsys.Open("sub/a", ReadOnly); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	testLink(t, fsys)
	_, err = fsys.Create("sub/z", 5)
	must(t, err)
	list, err = fsys.List("sub")
	must(t, err)
	if len(list) != 1 || list[0] != (Info{"z", 5}) {
		t.Fatal(list)
	}
	_, err = fsys.Create("d", Align*2)
	must(t, err)
	direct, err := fsys.Open("d", Direct)
	must(t, err)
	buf := AlignedBuf(Align)
	defer FreeBuf(buf)
	must(t, direct.WriteAt(buf, Align))
	if err := direct.WriteAt(buf[:100], 0); !errors.Is(err, ErrMisaligned) {
		t.Fatal(err)
	}
}

func testLink(t *testing.T, fsys FS) {
	t.Helper()
	f, err := fsys.Create("one/a", 0)
	must(t, err)
	must(t, f.WriteAt([]byte("shared"), 0))
	must(t, fsys.Link("one/a", "two/b"))
	if err := fsys.Link("one/a", "two/b"); !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	if err := fsys.Link("one/none", "two/c"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	must(t, fsys.Remove("one/a"))
	g, err := fsys.Open("two/b", ReadOnly)
	must(t, err)
	var b [6]byte
	if _, err := g.ReadAt(b[:], 0); err != nil || string(b[:]) != "shared" {
		t.Fatal(b, err)
	}
	must(t, fsys.Remove("two/b"))
	if list, err := fsys.List("two"); err != nil || len(list) != 0 {
		t.Fatal(list, err)
	}
}

// TestRemoveTakesEmptyDirectories: no directory stays that nothing lies in.
func TestRemoveTakesEmptyDirectories(t *testing.T) {
	d := openDir(t, Options{})
	for _, name := range []string{"a/b/c/1", "a/2"} {
		_, err := d.Create(name, 0)
		must(t, err)
	}
	must(t, d.Remove("a/b/c/1"))
	if _, err := os.Stat(filepath.Join(d.Path(), "a", "b")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	must(t, d.Remove("a/2"))
	if _, err := os.Stat(filepath.Join(d.Path(), "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if n, known := Room(Sub(d, "a")); !known || n <= 0 {
		t.Fatal(n, known)
	}
	if _, known := Room(Sub(NewMem(1), "a")); known {
		t.Fatal("a disk in memory knows its room")
	}
}

func TestLock(t *testing.T) {
	d := openDir(t, Options{})
	_, err := OpenDir(d.Path(), Options{})
	var le *LockedError
	if !errors.Is(err, ErrLocked) || !errors.As(err, &le) || le.PID != os.Getpid() {
		t.Fatal(err)
	}
	if _, err = OpenDir(d.Path(), Options{ReadOnly: true}); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	must(t, d.Close())
	r, err := OpenDir(d.Path(), Options{ReadOnly: true})
	must(t, err)
	defer r.Close()
	if _, err = OpenDir(filepath.Join(d.Path(), "none"), Options{ReadOnly: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// TestQueue writes through every engine that there is and reads back.
func TestQueue(t *testing.T) {
	for _, opts := range []Options{{}, {NoUring: true}} {
		d := openDir(t, opts)
		t.Run(d.Engine(), func(t *testing.T) { testQueue(t, d) })
	}
}

func testQueue(t *testing.T, d *Dir) {
	const depth, writes = 4, 64
	_, err := d.Create("f", writes*Align)
	must(t, err)
	f, err := d.Open("f", Direct)
	must(t, err)
	q, err := d.NewQueue(depth)
	must(t, err)
	t.Log(d.Engine(), d.EngineReason())
	var bufs [depth][]byte
	var free []uint64
	for i := range bufs {
		bufs[i] = AlignedBuf(Align)
		free = append(free, uint64(i))
	}
	var done [2]Completion
	for i := range writes {
		for len(free) == 0 {
			n, err := q.Wait(done[:])
			must(t, err)
			for _, c := range done[:n] {
				must(t, c.Err)
				free = append(free, c.Token)
			}
		}
		tok := free[0]
		free = free[1:]
		copy(bufs[tok], fmt.Sprintf("block %d", i))
		must(t, q.Submit(Write{File: f, Buf: bufs[tok], Off: int64(i) * Align, Token: tok}))
	}
	must(t, q.Close())
	g, err := d.Open("f", ReadOnly)
	must(t, err)
	for i := range writes {
		want := fmt.Sprintf("block %d", i)
		p := make([]byte, len(want))
		_, err := g.ReadAt(p, int64(i)*Align)
		must(t, err)
		if string(p) != want {
			t.Fatalf("block %d: %q", i, p)
		}
	}
	if err := q.Submit(Write{File: f, Buf: bufs[0]}); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}
