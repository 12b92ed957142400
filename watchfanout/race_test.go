package watchfanout

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "quire/api/etcdserverpb"
)

// TestConcurrent runs a publisher, readers that check everything, clients that
// come and go, requests from other goroutines than the reader's, and
// compaction, all at once and against real time.
func TestConcurrent(t *testing.T) {
	r := newRig(t, Options{ChunkBytes: 2 << 10, StreamPendingBytes: 8 << 10, TotalPendingBytes: 64 << 10, ProgressInterval: minProgressInterval, FragmentBytes: 700, ResponseBytes: 500})
	var done atomic.Bool
	var wg sync.WaitGroup
	spawn := func(f func(rnd *rand.Rand)) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f(rand.New(rand.NewPCG(rand.Uint64(), 1)))
		}()
	}
	key := func(rnd *rand.Rand) string { return fmt.Sprint("k", rnd.IntN(30)) }

	spawn(func(rnd *rand.Rand) {
		for i := 0; !done.Load(); i++ {
			var evs []Event
			for range 1 + rnd.IntN(3) {
				evs = append(evs, r.m.commit(put(key(rnd), fmt.Sprintf("%0*d", rnd.IntN(200), i)), del("x"), put("x", "y"))...)
			}
			_, rev := r.m.Bounds()
			r.hub.Publish(evs, rev)
			if i%50 == 0 {
				compact, _ := r.m.Bounds()
				r.m.compactTo(compact + (rev-compact)/2)
			}
			if i%500 == 499 {
				r.m.commit(put("k1", "z"))
				_, rev := r.m.Bounds()
				r.hub.Restored(rev)
			}
			time.Sleep(200 * time.Microsecond)
		}
	})
	for n := range 4 {
		spawn(func(rnd *rand.Rand) {
			c := r.checkedClient(fmt.Sprint("reader ", n))
			x := &chaos{rig: r, rand: rnd}
			for !done.Load() {
				if len(c.active) < 20 {
					x.create(c)
				}
				if rnd.IntN(3) == 0 {
					x.cancel(c)
				}
				if rnd.IntN(30) == 0 {
					time.Sleep(time.Duration(rnd.IntN(120)) * time.Millisecond)
				}
				_ = c.s.Progress()
				for range rnd.IntN(5) {
					c.readSome(1 + rnd.IntN(5000))
				}
			}
			for r.hub.Stats().SlowWatchers > 0 || c.readSome(1<<20) {
				time.Sleep(time.Millisecond)
				c.readSome(1 << 20)
			}
			for c.readSome(1 << 20) {
			}
			c.complete()
		})
	}
	for range 2 { // unchecked: requests and reads of one stream from several goroutines
		spawn(func(rnd *rand.Rand) {
			for !done.Load() {
				s := r.hub.OpenStream(StreamOptions{})
				var both sync.WaitGroup
				both.Go(func() {
					for i := range 200 {
						req := &pb.WatchCreateRequest{Key: []byte(key(rnd)), StartRevision: rnd.Int64N(r.hub.Revision() + 3), PrevKv: i%2 == 0, ProgressNotify: i%3 == 0}
						_ = s.Create(req)
						_ = s.Cancel(int64(i / 2))
						_ = s.Progress()
					}
				})
				var buf []byte
				for range 100 {
					buf, _ = s.Fill(buf[:0], 2000, nil)
				}
				if len(buf)%2 == 0 {
					both.Wait()
				}
				s.Close()
				both.Wait()
			}
		})
	}
	time.Sleep(1500 * time.Millisecond)
	done.Store(true)
	wg.Wait()
	t.Logf("%+v", r.hub.Stats())
}
