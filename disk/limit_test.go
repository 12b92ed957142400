package disk

import (
	"errors"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFileSizeLimit: a write that the kernel cuts short is continued until its
// reason is known, through every engine and through WriteAt.
func TestFileSizeLimit(t *testing.T) {
	signal.Ignore(unix.SIGXFSZ) // else the limit kills the process
	defer signal.Reset(unix.SIGXFSZ)
	for _, opts := range []Options{{}, {NoUring: true}} {
		d := openDir(t, opts)
		t.Run(d.Engine(), func(t *testing.T) {
			_, err := d.Create("f", 8*Align)
			must(t, err)
			f, err := d.Open("f", Direct)
			must(t, err)
			q, err := d.NewQueue(1)
			must(t, err)
			buf := AlignedBuf(4 * Align)
			defer FreeBuf(buf)
			copy(buf, "begin")
			withLimit(t, 2*Align, func() {
				must(t, q.Submit(Write{File: f, Buf: buf, Off: 0, Token: 7}))
				var done [1]Completion
				n, err := q.Wait(done[:])
				must(t, err)
				var de *Error
				if n != 1 || done[0].Token != 7 || !errors.Is(done[0].Err, unix.EFBIG) || !errors.As(done[0].Err, &de) || de.Name != "f" {
					t.Errorf("queue: %d %+v", n, done[0])
				}
				if err := f.WriteAt(buf, Align); !errors.Is(err, unix.EFBIG) {
					t.Errorf("WriteAt: %v", err)
				}
				if _, err := d.Create("g", 3*Align); !errors.Is(err, unix.EFBIG) {
					t.Errorf("Create: %v", err)
				}
			})
			must(t, q.Close())
			list, err := d.List("")
			must(t, err)
			if len(list) != 1 {
				t.Fatalf("a failed Create left %v", list)
			}
		})
	}
}

// withLimit runs f with the soft limit of file sizes at n bytes.
func withLimit(t *testing.T, n uint64, f func()) {
	var old unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &old))
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: old.Max}))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &old)) }()
	f()
}
