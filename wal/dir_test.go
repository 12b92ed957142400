package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"quire/disk"
)

// engines are the options for a real directory under each engine there is.
var engines = []disk.Options{{}, {NoUring: true}}

func openDir(t testing.TB, path string, opts disk.Options) *disk.Dir {
	t.Helper()
	d, err := disk.OpenDir(path, opts)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// eachEngine runs f once per engine that is built in.
func eachEngine(t *testing.T, f func(t *testing.T, opts disk.Options)) {
	seen := map[string]bool{}
	for _, opts := range engines {
		d := openDir(t, t.TempDir(), opts)
		name := d.Engine()
		d.Close()
		if !seen[name] {
			seen[name] = true
			t.Run(name, func(t *testing.T) { f(t, opts) })
		}
	}
}

// room is what the raft room does with a log: one lock for appends, one
// goroutine for completions, writers that wait for their position.
type room struct {
	l       *Log
	mu      sync.Mutex
	cond    *sync.Cond
	durable Pos
	err     error
	over    chan struct{}
}

func newRoom(l *Log) *room {
	r := &room{l: l, over: make(chan struct{})}
	r.cond = sync.NewCond(&r.mu)
	go func() {
		defer close(r.over)
		for {
			pos, err := l.Wait()
			r.mu.Lock()
			r.durable, r.err = pos, err
			r.cond.Broadcast()
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return r
}

// put appends a record and waits until it is durable.
func (r *room) put(rec []byte) (Pos, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pos, err := r.l.Append(rec)
	if err == nil {
		err = r.l.Submit(1, false)
	}
	for err == nil && r.durable < pos {
		if err = r.err; err == nil {
			r.cond.Wait()
		}
	}
	return pos, err
}

// TestConcurrent: many writers, trimming and rolling on real files, twice; then
// everything that was acknowledged is read back.
func TestConcurrent(t *testing.T) {
	eachEngine(t, func(t *testing.T, opts disk.Options) {
		path := t.TempDir()
		want := map[Pos]uint64{}
		for round := range 2 {
			testConcurrent(t, openDir(t, path, opts), want, uint64(round))
		}
	})
}

func testConcurrent(t *testing.T, d *disk.Dir, want map[Pos]uint64, round uint64) {
	defer d.Close()
	var first Pos
	l, rec, err := Open(d, Options{SegmentBytes: 256 << 10, MaxBatchBytes: 32 << 10, IdleMark: 1e6}, func(pos Pos, rec []byte) error {
		if first == 0 {
			first = pos
		}
		if got := binary.LittleEndian.Uint64(rec); got != want[pos] {
			return fmt.Errorf("record %d is %#x, want %#x", pos, got, want[pos])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if int(rec.LastPos) != len(want) || round > 0 && !rec.Clean {
		t.Fatalf("%d records, want %d; %+v", rec.LastPos, len(want), rec)
	}
	r := newRoom(l)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for w := range uint64(8) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rng := rand.New(rand.NewPCG(w, round))
			buf := make([]byte, 100<<10)
			for i := range uint64(100) {
				n := 8 + rng.IntN(2000)
				if rng.IntN(25) == 0 {
					n = 8 + rng.IntN(len(buf)-8)
				}
				id := round<<48 | w<<32 | i
				binary.LittleEndian.PutUint64(buf, id)
				pos, err := r.put(buf[:n])
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				want[pos] = id
				mu.Unlock()
				if i%20 == 19 {
					if err := l.TrimBefore(pos / 2); err != nil {
						t.Error(err)
					}
				}
				_ = l.Stats()
			}
		}()
	}
	wg.Wait()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-r.over
	if !errors.Is(r.err, ErrClosed) {
		t.Fatal(r.err)
	}
}
