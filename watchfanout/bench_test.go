package watchfanout

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	pb "quire/api/etcdserverpb"
	"quire/api/mvccpb"
)

// flat is a history that has nothing and never blocks.
type flat struct{ rev int64 }

func (f flat) Bounds() (int64, int64) { return 0, f.rev }
func (f flat) Events(dst []Event, from int64, _ int, _ bool) ([]Event, int64, error) {
	return dst, f.rev + 1, nil
}

func benchHub(b testing.TB, o Options) *Hub {
	header := testHeader(nil, 1<<40)
	o.Header = func(dst []byte, rev int64) []byte { return append(dst, header...) }
	h := NewHub(flat{rev: 1}, o)
	b.Cleanup(h.Close)
	return h
}

func benchEvent(key string, rev int64, valueBytes int) Event {
	kv := &mvccpb.KeyValue{Key: []byte(key), Value: make([]byte, valueBytes), CreateRevision: 2, ModRevision: 1 << 40, Version: 7}
	return Event{Main: rev, Key: kv.Key, KV: mustMarshal(kv)}
}

// cpuNanos is the processor time that the process has used: on a machine with
// other work the only figure that means something.
func cpuNanos() float64 {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return float64(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPublish is the CPU of one event from Publish until all watchers'
// responses are encoded, for watchers of one key over different numbers of
// streams; per watcher.
func BenchmarkPublish(b *testing.B) {
	for _, shape := range []struct{ streams, watchers int }{{1, 0}, {1, 1}, {1, 1000}, {1000, 1}, {1, 10000}, {100, 100}, {10000, 1}} {
		b.Run(fmt.Sprintf("streams=%d/watchers=%d", shape.streams, shape.watchers), func(b *testing.B) {
			h := benchHub(b, Options{})
			streams := make([]*Stream, shape.streams)
			ready := make([]*Stream, 0, shape.streams)
			for i := range streams {
				streams[i] = h.OpenStream(StreamOptions{Ready: func() { ready = append(ready, streams[i]) }})
				for range shape.watchers {
					if err := streams[i].Create(&pb.WatchCreateRequest{Key: []byte("hot")}); err != nil {
						b.Fatal(err)
					}
					if streams[i].Busy() {
						streams[i].Fill(nil, 1<<20, nil)
					}
				}
				streams[i].Fill(nil, 1<<20, nil)
				// A million watchers of other keys would change nothing: they are not looked at.
				_ = streams[i].Create(&pb.WatchCreateRequest{Key: []byte(fmt.Sprint("cold", i))})
				streams[i].Fill(nil, 1<<20, nil)
			}
			buf := make([]byte, 0, 1<<20)
			frame := func(dst []byte, n int) []byte {
				return append(dst, 0, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
			}
			evs := []Event{benchEvent("hot", 0, 128)}
			rev := int64(1)
			ready = ready[:0]
			b.ReportAllocs()
			cpu := cpuNanos()
			b.ResetTimer()
			for range b.N {
				rev++
				evs[0].Main = rev
				h.Publish(evs, rev)
				for _, s := range ready {
					for more := true; more; {
						buf, more = s.Fill(buf[:0], 64<<10, frame)
					}
				}
				ready = ready[:0]
			}
			b.StopTimer()
			if n := shape.streams * shape.watchers; n > 0 {
				b.ReportMetric((cpuNanos()-cpu)/float64(b.N)/float64(n), "cpu-ns/delivered")
				if got := h.Stats().EventsSent; got != uint64(n*b.N) {
					b.Fatalf("%d events sent, not %d: %+v", got, n*b.N, h.Stats())
				}
			}
		})
	}
}

// BenchmarkPublishMiss is an event that nobody watches, among many watchers of
// every kind.
func BenchmarkPublishMiss(b *testing.B) {
	h := benchHub(b, Options{MaxControls: 1 << 20})
	s := h.OpenStream(StreamOptions{})
	for i := range 100000 {
		k := fmt.Sprintf("/registry/pods/ns%05d/x", i)
		_ = s.Create(&pb.WatchCreateRequest{Key: []byte(k)})
	}
	for i := range 1000 {
		k := fmt.Appendf(nil, "/registry/pods/ns%05d/", i)
		end := append([]byte(nil), k...)
		end[len(end)-1]++
		_ = s.Create(&pb.WatchCreateRequest{Key: k, RangeEnd: end})
		_ = s.Create(&pb.WatchCreateRequest{Key: k, RangeEnd: append(end, 'x')})
	}
	evs := []Event{benchEvent("/registry/pods/other/pod-1", 0, 128)}
	b.ReportAllocs()
	rev := int64(1)
	for b.Loop() {
		rev++
		evs[0].Main = rev
		h.Publish(evs, rev)
	}
}

// BenchmarkCreate makes 100,000 watchers on one stream, reading the answers.
func BenchmarkCreate(b *testing.B) {
	const n = 100000
	for _, same := range []bool{false, true} {
		b.Run(fmt.Sprintf("samekey=%v", same), func(b *testing.B) {
			keys := make([][]byte, n)
			for i := range keys {
				if keys[i] = fmt.Appendf(nil, "/registry/pods/ns/%07d", i); same {
					keys[i] = keys[0]
				}
			}
			var before, after runtime.MemStats
			buf := make([]byte, 0, 1<<20)
			b.ReportAllocs()
			cpu := 0.0
			b.ResetTimer()
			for range b.N {
				b.StopTimer()
				h := benchHub(b, Options{})
				s := h.OpenStream(StreamOptions{})
				runtime.GC()
				runtime.ReadMemStats(&before)
				b.StartTimer()
				from := cpuNanos()
				for _, k := range keys {
					for s.Create(&pb.WatchCreateRequest{Key: k}) != nil {
						buf, _ = s.Fill(buf[:0], 64<<10, nil)
					}
				}
				s.Fill(buf[:0], 1<<20, nil)
				cpu += cpuNanos() - from
				b.StopTimer()
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/watcher")
				b.StartTimer()
				s.Close()
			}
			b.ReportMetric(cpu/float64(b.N)/n, "cpu-ns/watcher")
		})
	}
}

// BenchmarkCatchUp is many watchers that start at the same old revision, over
// a history that is already in memory.
func BenchmarkCatchUp(b *testing.B) {
	const revs = 20000
	m := newModel()
	for i := range revs {
		m.commit(put(fmt.Sprintf("k%03d", i%1000), "some value of a length that is usual in practice"))
	}
	for _, shape := range []struct {
		streams, watchers int
		all               bool
	}{{1, 1, true}, {1, 1000, false}, {100, 1, true}} {
		b.Run(fmt.Sprintf("streams=%d/watchers=%d/all=%v", shape.streams, shape.watchers, shape.all), func(b *testing.B) {
			b.ReportAllocs()
			events := uint64(0)
			cpu := cpuNanos()
			for range b.N {
				h := NewHub(m, Options{Header: testHeader})
				wake := make(chan *Stream, shape.streams)
				for range shape.streams {
					var s *Stream
					s = h.OpenStream(StreamOptions{Ready: func() { wake <- s }})
					for w := range shape.watchers {
						req := &pb.WatchCreateRequest{Key: fmt.Appendf(nil, "k%03d", w), StartRevision: 2}
						if shape.all {
							req.Key, req.RangeEnd = []byte{0}, []byte{0}
						}
						if err := s.Create(req); err != nil {
							b.Fatal(err)
						}
					}
				}
				goal := uint64(revs * shape.streams)
				buf := make([]byte, 0, 1<<20)
				for h.Stats().EventsSent < goal {
					select {
					case s := <-wake:
						for more := true; more; {
							buf, more = s.Fill(buf[:0], 64<<10, nil)
						}
					case <-time.After(10 * time.Second):
						b.Fatalf("stuck: %+v", h.Stats())
					}
				}
				events += h.Stats().EventsSent
				h.Close()
			}
			b.ReportMetric((cpuNanos()-cpu)/float64(events), "cpu-ns/event")
		})
	}
}
