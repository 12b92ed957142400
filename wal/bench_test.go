package wal

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire/disk"
)

// BenchmarkAppend measures durable appends of 320-byte records by n writers,
// each of which waits for its own. The custom units are per operation.
func BenchmarkAppend(b *testing.B) {
	for _, opts := range engines {
		d := openDir(b, b.TempDir(), opts)
		engine := d.Engine()
		d.Close()
		if engine == disk.EnginePwrite && !opts.NoUring {
			continue
		}
		for _, writers := range []int{1, 4, 16, 100, 400} {
			b.Run(fmt.Sprintf("%s/writers=%d", engine, writers), func(b *testing.B) { benchAppend(b, opts, writers) })
		}
	}
}

func benchAppend(b *testing.B, opts disk.Options, writers int) {
	d := openDir(b, b.TempDir(), opts)
	defer d.Close()
	l, _, err := Open(d, Options{SegmentBytes: 64 << 20}, nil)
	if err != nil {
		b.Fatal(err)
	}
	for l.Stats().AheadBytes < 65<<20 { // the fill of the next segment is not what is measured
		_ = l.Maintain()
	}
	r := newBenchRoom(l)
	rec := make([]byte, 320)
	before, cpu := l.Stats(), cpuTime()
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		n := b.N / writers
		if w < b.N%writers {
			n++
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			ready := make(chan struct{}, 1)
			for range n {
				r.put(rec, ready)
				<-ready
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
	after := l.Stats()
	b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/float64(after.Batches-before.Batches), "ops/write")
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
	<-r.over
}

// cpuTime is what the process has used, in user mode and in the kernel.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchRoom wakes each waiter by its own channel: a ring of waiters in order of
// position. It allocates nothing per operation.
type benchRoom struct {
	l     *Log
	mu    sync.Mutex
	ring  [1024]chan struct{} // by position
	told  Pos
	over  chan struct{}
	error error
}

func newBenchRoom(l *Log) *benchRoom {
	r := &benchRoom{l: l, told: l.Durable(), over: make(chan struct{})}
	go func() {
		defer close(r.over)
		for {
			pos, err := l.Wait()
			r.mu.Lock()
			for r.told < pos {
				r.told++
				r.ring[r.told%1024] <- struct{}{}
			}
			r.error = err
			r.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return r
}

func (r *benchRoom) put(rec []byte, ready chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pos, err := r.l.Append(rec)
	if err != nil {
		panic(err)
	}
	r.ring[pos%1024] = ready
	if err := r.l.Submit(1, false); err != nil {
		panic(err)
	}
}

// BenchmarkBuffer measures what a record costs without a disk: the copy, the
// frame and its share of sealing.
func BenchmarkBuffer(b *testing.B) {
	m := disk.NewMem(1)
	l, _, err := Open(m, Options{SegmentBytes: 64 << 20, MaxBatchBytes: 1 << 20, Manual: true}, nil)
	if err != nil {
		b.Fatal(err)
	}
	rec := make([]byte, 320)
	var h batchHeader
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, err := l.Append(rec); err != nil {
			b.Fatal(err)
		}
		if i%128 == 127 { // as startLocked does, but nothing is written
			l.mu.Lock()
			h.payload = uint32(l.open.used - headerBytes)
			h.seal(l.open.buf)
			l.open.used, l.open.frames = headerBytes, 0
			l.mu.Unlock()
		}
	}
}

// BenchmarkOpen measures a start: reading back a segment full of records, and
// looking through an empty one for what may lie behind the end.
func BenchmarkOpen(b *testing.B) {
	for _, full := range []bool{true, false} {
		b.Run(fmt.Sprintf("full=%v", full), func(b *testing.B) {
			d := openDir(b, b.TempDir(), disk.Options{})
			defer d.Close()
			l, _, err := Open(d, Options{}, nil)
			if err != nil {
				b.Fatal(err)
			}
			for full && l.Stats().Segments == 1 {
				if _, err := l.Append(make([]byte, 4000)); err != nil {
					b.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				rec, err := Check(d)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(rec.Records), "records")
			}
		})
	}
}
