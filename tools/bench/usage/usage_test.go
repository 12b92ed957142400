package usage

import (
	"errors"
	"io/fs"
	"os"
	"testing"
	"testing/fstest"
	"time"
)

func TestParseStat(t *testing.T) {
	line := []byte("42 (a (odd) name) S 1 42 42 0 -1 4194560 100 0 0 0 250 75 0 0 20 0 11 0 12345 1 1 1\n")
	user, system, err := parseStat(line)
	if err != nil || user != 2500*time.Millisecond || system != 750*time.Millisecond {
		t.Errorf("got %v and %v (%v), want 2.5s and 750ms", user, system, err)
	}
	for _, bad := range []string{"", "1 (x) S 1 2", "1 (x) S 1 2 3 4 5 6 7 8 9 10 x 12 13"} {
		if _, _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}

func TestReadOne(t *testing.T) {
	proc := fstest.MapFS{
		"stat":   {Data: []byte("1 (x) S 1 1 1 0 -1 0 0 0 0 0 10 20 0 0")},
		"status": {Data: []byte("Name:\tx\nVmHWM:\t  300 kB\nVmRSS:\t  200 kB\nRssAnon:\t 150 kB\nRssFile:\t 40 kB\nRssShmem:\t 10 kB\nThreads:\t7\n")},
		"io":     {Data: []byte("rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n")},
	}
	got, err := readOne(proc)
	want := Reading{
		User: 100 * time.Millisecond, System: 200 * time.Millisecond,
		RSSBytes: 200 << 10, AnonBytes: 160 << 10, FileBytes: 40 << 10, PeakBytes: 300 << 10,
		ReadBytes: 4096, WriteBytes: 8192, Threads: 7,
	}
	if err != nil || got != want {
		t.Errorf("got %+v (%v)\nwant %+v", got, err, want)
	}
}

func TestReadSelf(t *testing.T) {
	r, err := Read([]int{os.Getpid()})
	if err != nil || r.RSSBytes == 0 || r.Threads == 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := Read([]int{1 << 30}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a process that is not there gave %v", err)
	}
}

func TestSampler(t *testing.T) {
	var n int64
	s := Start([]int{os.Getpid()}, time.Millisecond, func() int64 { n++; return n })
	time.Sleep(20 * time.Millisecond)
	points := s.Stop()
	if len(points) < 3 {
		t.Fatalf("%d points", len(points))
	}
	for i := 1; i < len(points); i++ {
		if points[i].At <= points[i-1].At || points[i].Ops <= points[i-1].Ops {
			t.Errorf("point %d is not after its predecessor: %+v, %+v", i, points[i-1], points[i])
		}
	}
}
