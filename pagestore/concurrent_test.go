package pagestore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quire/disk"
)

// owners is the index of the concurrent test: one lock, as the engine's.
type owners struct {
	mu    sync.RWMutex
	place map[uint64]Ref
	size  map[uint64]int
	next  uint64
}

func (o *owners) Live(batch []Candidate) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for i, c := range batch {
		batch[i].Live = o.place[hintKey(c.Hint)] == c.Ref
	}
}

func (o *owners) Moved(batch []Candidate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for i, c := range batch {
		id := hintKey(c.Hint)
		if batch[i].Live = o.place[id] == c.Ref; batch[i].Live {
			o.place[id] = c.New
		}
	}
}

// pick returns some live record.
func (o *owners) pick(rng *rand.Rand) (id uint64, ref Ref, n int) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	for range 10 {
		if o.next == 0 {
			break
		}
		id = rng.Uint64N(o.next)
		if ref = o.place[id]; ref != 0 {
			return id, ref, o.size[id]
		}
	}
	return 0, 0, 0
}

// TestConcurrent runs one writer, pinned and unpinned readers, reclaim, commits
// and scrub against each other, and then recovers. It is meant for -race.
func TestConcurrent(t *testing.T) {
	dir, err := disk.OpenDir(t.TempDir(), disk.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, fsys := range []disk.FS{disk.NewMem(1), dir} {
		t.Run(fmt.Sprintf("%T", fsys), func(t *testing.T) { concurrent(t, fsys) })
	}
}

func concurrent(t *testing.T, fsys disk.FS) {
	opts := testOptions()
	opts.Inline, opts.Nonce = false, nil
	opts.OnFatal = func(err error) { t.Errorf("fatal: %v", err) }
	s, _ := mustOpen(t, fsys, opts)
	o := &owners{place: map[uint64]Ref{}, size: map[uint64]int{}}
	ctx, cancel := context.WithTimeout(context.Background(), 1500*time.Millisecond)
	defer cancel()

	var group sync.WaitGroup
	run := func(name string, fn func(rng *rand.Rand) error) {
		group.Add(1)
		go func() {
			defer group.Done()
			rng := rand.New(rand.NewPCG(1, uint64(len(name))))
			for ctx.Err() == nil {
				if err := fn(rng); err != nil {
					t.Errorf("%s: %v", name, err)
					cancel()
				}
			}
		}()
	}
	cuts := make(chan *Cut, 1)
	var reads, gone, reclaimed, commits atomic.Int64
	run("writer", func(rng *rand.Rand) error { return writeOne(s, o, rng, cuts) })
	run("commit", func(*rand.Rand) error {
		select {
		case c := <-cuts:
			commits.Add(1)
			return c.Commit()
		case <-ctx.Done():
			return nil
		}
	})
	run("reclaim", func(*rand.Rand) error {
		n, err := s.Reclaim(ctx, Budget{Below: 0.8}, o)
		reclaimed.Add(n)
		if errors.Is(err, context.DeadlineExceeded) {
			return nil
		}
		return err
	})
	run("pinned reader", func(rng *rand.Rand) error { return readPinned(s, o, rng, &reads) })
	run("bare reader", func(rng *rand.Rand) error {
		id, ref, n := o.pick(rng)
		if ref == 0 {
			return nil
		}
		err := readRight(s, ref, id, n)
		if errors.Is(err, ErrGone) {
			gone.Add(1)
			return nil
		}
		return err
	})
	run("scrub", func(*rand.Rand) error { _, err := s.Scrub(64 << 10); return err })
	run("size", func(*rand.Rand) error { s.Size(); s.Stats(); time.Sleep(time.Millisecond); return nil })
	group.Wait()

	c, err := s.Cut([]byte("end"), func(w io.Writer) error { return nil })
	if err == nil {
		err = c.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.checkInvariants(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d records, %d pinned reads, %d gone, %d commits, %d bytes reclaimed; %+v", o.next, reads.Load(), gone.Load(), commits.Load(), reclaimed.Load(), s.Stats())
	s.Close()
	if err := Check(fsys); err != nil {
		t.Fatal(err)
	}
	s, _ = mustOpen(t, fsys, opts)
	defer s.Close()
	found := map[uint64]Ref{}
	s.Hints(1, func(_ int, ref Ref, n int, hint []byte) error { found[hintKey(hint)] = ref; return nil })
	for id := range o.place {
		if err := readRight(s, found[id], id, o.size[id]); err != nil {
			t.Fatal(err)
		}
	}
}

// writeOne appends a record, kills older ones, and takes a Cut at times.
func writeOne(s *Store, o *owners, rng *rand.Rand, cuts chan *Cut) error {
	n := 8 + rng.IntN(400)
	if rng.IntN(300) == 0 {
		n = 20 << 10
	}
	o.mu.RLock()
	id := o.next
	o.mu.RUnlock()
	ref, err := s.Append(worldRecord(id, n))
	if err != nil {
		return err
	}
	o.mu.Lock()
	o.place[id], o.size[id] = ref, n
	o.next++
	o.mu.Unlock()
	for range 2 {
		old, _, _ := o.pick(rng)
		o.mu.Lock()
		ref := o.place[old]
		if len(o.place) < 500 {
			ref = 0
		}
		if ref != 0 {
			delete(o.place, old)
		}
		o.mu.Unlock()
		if ref != 0 {
			s.Free(ref)
		}
	}
	if id%200 != 0 || len(cuts) > 0 {
		return nil
	}
	if id%1000 == 0 {
		s.Roll()
	}
	c, err := s.Cut(nil, nil)
	if err == nil {
		cuts <- c
	}
	return err
}

// readPinned picks places under a pin and reads them a little later: none may be
// gone by then.
func readPinned(s *Store, o *owners, rng *rand.Rand, reads *atomic.Int64) error {
	pin := s.Pin()
	defer pin.Release()
	var refs [20]struct {
		id  uint64
		ref Ref
		n   int
	}
	for i := range refs {
		refs[i].id, refs[i].ref, refs[i].n = o.pick(rng)
	}
	time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond)
	for _, r := range refs {
		if r.ref == 0 {
			continue
		}
		if err := readRight(s, r.ref, r.id, r.n); err != nil {
			return err
		}
		reads.Add(1)
	}
	return nil
}
