//go:build giouring

package disk

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestUringResults feeds results that a healthy disk does not give.
func TestUringResults(t *testing.T) {
	d := openDir(t, Options{})
	_, err := d.Create("f", 8*Align)
	must(t, err)
	f, err := d.Open("f", Direct)
	must(t, err)
	buf := AlignedBuf(4 * Align)
	defer FreeBuf(buf)
	for i := range buf {
		buf[i] = byte(i / Align)
	}
	for _, c := range []struct {
		res  int32
		want error // nil: the rest is submitted again and written
	}{
		{-int32(unix.EIO), unix.EIO},
		{-int32(unix.ENOSPC), unix.ENOSPC},
		{-int32(unix.ECANCELED), unix.ECANCELED},
		{100, io.ErrShortWrite},
		{0, io.ErrShortWrite},
		{Align, nil},
		{-int32(unix.EAGAIN), nil},
		{-int32(unix.EINTR), nil},
	} {
		queue, err := newUringQueue(1)
		must(t, err)
		q := queue.(*uringQueue)
		q.flights[0] = flight{w: Write{File: f, Buf: buf, Off: Align, Token: 3}, fd: f.(*dirFile).fd}
		q.idle = nil
		q.mu.Lock()
		ended, err := q.endLocked(0, c.res)
		q.mu.Unlock()
		if ended != (c.want != nil) || !errors.Is(err, c.want) {
			t.Fatalf("result %d: ended %v, %v", c.res, ended, err)
		}
		if !ended {
			var done [1]Completion
			n, err := q.Wait(done[:])
			if n != 1 || err != nil || done[0] != (Completion{Token: 3}) {
				t.Fatalf("result %d: %d %v %v", c.res, n, done, err)
			}
		} else {
			q.idle = []uint64{0}
		}
		must(t, q.Close())
	}
	got := make([]byte, len(buf))
	_, err = f.ReadAt(AlignedBuf(Align), 0)
	must(t, err)
	r, err := d.Open("f", ReadOnly)
	must(t, err)
	_, err = r.ReadAt(got, Align)
	must(t, err)
	if string(got) != string(buf) {
		t.Fatal("content")
	}
}

// TestUringGivesUp: EAGAIN without end becomes an error.
func TestUringGivesUp(t *testing.T) {
	d := openDir(t, Options{})
	_, err := d.Create("f", Align)
	must(t, err)
	f, err := d.Open("f", Direct)
	must(t, err)
	queue, err := newUringQueue(1)
	must(t, err)
	q := queue.(*uringQueue)
	q.flights[0] = flight{w: Write{File: f, Buf: AlignedBuf(Align)}, fd: f.(*dirFile).fd, retries: maxRetries}
	if ended, err := q.endLocked(0, -int32(unix.EAGAIN)); !ended || !errors.Is(err, unix.EAGAIN) {
		t.Fatal(ended, err)
	}
	must(t, q.Close())
}

// TestUringCloseWakesWait: Close ends a Wait that sleeps, and one that comes later.
func TestUringCloseWakesWait(t *testing.T) {
	q, err := newUringQueue(2)
	must(t, err)
	got := make(chan error)
	go func() {
		var done [1]Completion
		_, err := q.Wait(done[:])
		got <- err
	}()
	runtime.Gosched()
	must(t, q.Close())
	if err := <-got; !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := q.Close(); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

// TestUringRefused runs a child whose kernel refuses io_uring: it must use
// pwrite and tell why.
func TestUringRefused(t *testing.T) {
	const env = "QUIRE_TEST_REFUSE"
	if which := os.Getenv(env); which != "" {
		errno := unix.ENOSYS
		if which == "EPERM" {
			errno = unix.EPERM
		}
		must(t, refuseUring(errno))
		d := openDir(t, Options{})
		if d.Engine() != EnginePwrite || !strings.Contains(d.EngineReason(), "refuses") || !strings.Contains(d.EngineReason(), errno.Error()) {
			t.Fatal(d.Engine(), d.EngineReason())
		}
		testQueue(t, d)
		return
	}
	for _, which := range []string{"ENOSYS", "EPERM"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestUringRefused$")
		cmd.Env = append(os.Environ(), env+"="+which)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", which, err, out)
		}
	}
}

// refuseUring installs a seccomp filter for all threads: io_uring_setup fails.
func refuseUring(errno unix.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0}, // the number of the call
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_IO_URING_SETUP, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		return e
	}
	return nil
}
