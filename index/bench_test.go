package index

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// The sizes at which the benchmarks run; 10 million needs 1.5 GB and a minute.
var bigFlag = flag.Bool("index.big", false, "run the benchmarks at 10 million keys too")

func benchSizes(b *testing.B, run func(b *testing.B, n int)) {
	b.Run("1M", func(b *testing.B) { run(b, 1_000_000) })
	if *bigFlag && !testing.Short() {
		b.Run("10M", func(b *testing.B) { run(b, 10_000_000) })
	}
}

// benchKeys are n keys of 32 bytes in random order.
type benchKeys struct {
	bytes []byte
}

const benchKeyBytes = 32

var keySets = map[int]*benchKeys{}

func keysOf(n int) *benchKeys {
	if k := keySets[n]; k != nil {
		return k
	}
	k := &benchKeys{make([]byte, 0, n*benchKeyBytes)}
	order := rand.New(rand.NewPCG(1, 2)).Perm(n)
	for _, i := range order {
		k.bytes = fmt.Appendf(k.bytes, "/registry/pods/ns-%03d/%010x", i%200, uint32(i)*2654435761)
	}
	keySets[n] = k
	return k
}

func (k *benchKeys) at(i int) []byte {
	return k.bytes[i*benchKeyBytes : (i+1)*benchKeyBytes]
}

var fullIndexes = map[int]*Index{}

// fullIndex is an Index with n keys, each put once. Benchmarks share it and
// must not add or remove keys.
func fullIndex(n int) *Index {
	if x := fullIndexes[n]; x != nil {
		return x
	}
	x := New()
	keys := keysOf(n)
	for i := range n {
		insertOne(x, keys.at(i), int64(i+2))
	}
	fullIndexes[n] = x
	return x
}

func insertOne(x *Index, key []byte, main int64) {
	x.BeginWrite()
	h, old, ok := x.Find(key)
	v := Version{Main: main, Create: main, Ver: 1, Loc: Loc(main)}
	if ok {
		v.Create, v.Ver = old.Create, old.Ver+1
	}
	x.Put(h, key, v)
	x.EndWrite()
}

// timed runs op b.N times and reports, besides the mean, the first quartile
// of batches: what it takes while nothing else wants the processor.
func timed(b *testing.B, batch int, op func()) {
	b.ReportAllocs()
	times := make([]float64, 0, b.N/batch+1)
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		n := min(batch, b.N-done)
		start := time.Now()
		for range n {
			op()
		}
		times = append(times, float64(time.Since(start).Nanoseconds())/float64(n))
	}
	b.StopTimer()
	slices.Sort(times)
	b.ReportMetric(times[len(times)/4], "q1-ns/op")
}

// BenchmarkInsert fills an empty Index with n keys, again and again.
func BenchmarkInsert(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		keys := keysOf(n)
		var x *Index
		i := 0
		timed(b, 1000, func() {
			if i%n == 0 {
				x = New()
			}
			insertOne(x, keys.at(i%n), int64(i+2))
			i++
		})
	})
}

// BenchmarkUpdate supersedes random keys, with a history of 100,000 revisions
// that compaction follows.
func BenchmarkUpdate(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		keys := keysOf(n)
		x := fullIndex(n)
		delete(fullIndexes, n)
		main := x.log.lastMain
		r := rand.New(rand.NewPCG(3, 4))
		var freed []VersionRef
		timed(b, 256, func() {
			main++
			insertOne(x, keys.at(r.IntN(n)), main)
			if main%256 == 0 {
				x.BeginWrite()
				x.CompactTo(main - 100_000)
				freed, _ = x.CompactStep(freed[:0], 512)
				x.EndWrite()
			}
		})
	})
}

// BenchmarkDelete deletes keys, removes them by compaction and puts them back.
func BenchmarkDelete(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		keys := keysOf(n)
		x := fullIndex(n)
		delete(fullIndexes, n)
		main := x.log.lastMain
		i := 0
		var freed []VersionRef
		timed(b, 250, func() {
			key := keys.at(i % n)
			i++
			x.BeginWrite()
			h, _, _ := x.Find(key)
			x.Put(h, key, Version{Main: main + 1, Tombstone: true, Loc: 1})
			x.CompactTo(main + 2)
			freed, _ = x.CompactStep(freed[:0], 1<<30)
			h, _, _ = x.Find(key)
			x.Put(h, key, Version{Main: main + 3, Create: main + 3, Ver: 1, Loc: 1})
			x.EndWrite()
			main += 3
		})
	})
}

func compactAll(x *Index) (freed []VersionRef) {
	for done := false; !done; {
		freed, done = x.CompactStep(freed, 1000)
	}
	return freed
}

func BenchmarkGet(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		keys, x := keysOf(n), fullIndex(n)
		rev := x.log.lastMain
		r := rand.New(rand.NewPCG(3, 4))
		timed(b, 100, func() {
			if _, ok := x.Get(keys.at(r.IntN(n)), rev); !ok {
				b.Fatal("absent")
			}
		})
	})
}

func benchScan(b *testing.B, back int64, q Query) {
	benchSizes(b, func(b *testing.B, n int) {
		keys, x := keysOf(n), fullIndex(n)
		q := q
		q.Rev = x.log.lastMain - back
		r := rand.New(rand.NewPCG(3, 4))
		var s Scanner
		timed(b, 1, func() {
			if q.Lo = keys.at(r.IntN(n)); q.Descending {
				q.Lo, q.Hi = nil, q.Lo
			}
			s.Reset(x, q)
			for left := 1000; left > 0; {
				hits := len(s.Next(left))
				if hits == 0 {
					break
				}
				left -= hits
			}
		})
	})
}

func BenchmarkScan1000(b *testing.B)      { benchScan(b, 0, Query{}) }
func BenchmarkScan1000Keys(b *testing.B)  { benchScan(b, 0, Query{Keys: true}) }
func BenchmarkScan1000Down(b *testing.B)  { benchScan(b, 0, Query{Descending: true}) }
func BenchmarkScan1000Older(b *testing.B) { benchScan(b, 1000, Query{}) }

func BenchmarkCount5000(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		x := fullIndex(n)
		rev := x.log.lastMain
		var lo, hi [200][]byte
		for i := range lo {
			lo[i] = fmt.Appendf(nil, "/registry/pods/ns-%03d/", i)
			hi[i] = fmt.Appendf(nil, "/registry/pods/ns-%03d0", i)
		}
		i := 0
		timed(b, 100, func() {
			if got := x.Count(lo[i%200], hi[i%200], rev); got != int64(n/200) {
				b.Fatal(got)
			}
			i++
		})
	})
}

// BenchmarkCountOlder counts 5000 keys at a revision 1,000 creations ago.
func BenchmarkCountOlder(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		x := fullIndex(n)
		lo, hi := []byte("/registry/pods/ns-007/"), []byte("/registry/pods/ns-0070")
		timed(b, 1, func() { x.Count(lo, hi, x.log.lastMain-1000) })
	})
}

// BenchmarkEvents reads the log 100 revisions at a time.
func BenchmarkEvents(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		x := fullIndex(n)
		to := x.log.lastMain
		next := int64(2)
		var events []Event
		timed(b, 10, func() {
			events, next, _ = x.Events(events[:0], next, to, 100)
			if next > to {
				next = 2
			}
		})
	})
}

// BenchmarkGetDuringWrites is a reader beside a writer that updates without a
// pause, taking the lock for each update.
func BenchmarkGetDuringWrites(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		keys, x := keysOf(n), fullIndex(n)
		delete(fullIndexes, n)
		rev := x.log.lastMain
		stop := make(chan struct{})
		writes := 0
		var wg sync.WaitGroup
		wg.Go(func() {
			r := rand.New(rand.NewPCG(5, 6))
			for main := rev + 1; ; main++ {
				select {
				case <-stop:
					return
				default:
				}
				insertOne(x, keys.at(r.IntN(n)), main)
				writes++
			}
		})
		r := rand.New(rand.NewPCG(3, 4))
		timed(b, 100, func() {
			if _, ok := x.Get(keys.at(r.IntN(n)), rev); !ok {
				b.Fatal("absent")
			}
		})
		close(stop)
		wg.Wait()
		b.ReportMetric(float64(writes)/float64(b.N), "writes/op")
	})
}

// BenchmarkMemory reports the memory per key, with the log of all the puts
// and after compaction, and how long a garbage collection takes.
func BenchmarkMemory(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		for range b.N {
			var before, after, compacted runtime.MemStats
			keys := keysOf(n)
			delete(fullIndexes, n)
			runtime.GC()
			runtime.ReadMemStats(&before)
			x := fullIndex(n)
			runtime.GC()
			runtime.ReadMemStats(&after)
			x.BeginWrite()
			x.CompactTo(x.log.lastMain)
			compactAll(x)
			x.EndWrite()
			runtime.GC()
			runtime.ReadMemStats(&compacted)
			start := time.Now()
			runtime.GC()
			b.ReportMetric(time.Since(start).Seconds()*1000, "GC-ms")
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/key")
			b.ReportMetric(float64(compacted.HeapAlloc-before.HeapAlloc)/float64(n), "compacted-B/key")
			b.ReportMetric(float64(x.MemBytes())/float64(n), "said-B/key")
			runtime.KeepAlive(keys)
		}
	})
}

// BenchmarkHotKey reads, moves and supersedes a key with n versions.
func BenchmarkHotKey(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		x := New()
		key := []byte("hot")
		for i := range n {
			insertOne(x, key, int64(i+2))
		}
		r := rand.New(rand.NewPCG(3, 4))
		b.Run("get", func(b *testing.B) {
			timed(b, 10, func() { x.Get(key, 2+r.Int64N(int64(n))) })
		})
		b.Run("relocate", func(b *testing.B) {
			x.BeginWrite()
			defer x.EndWrite()
			timed(b, 10, func() {
				main := 2 + r.Int64N(int64(n))
				v, _ := x.GetLocked(key, main)
				x.Relocate(Relocation{key, main, 0, v.Loc, v.Loc})
			})
		})
		b.Run("update", func(b *testing.B) {
			main := x.log.lastMain
			var freed []VersionRef
			timed(b, 256, func() {
				main++
				insertOne(x, key, main)
				if main%256 == 0 {
					x.BeginWrite()
					x.CompactTo(main - int64(n))
					freed, _ = x.CompactStep(freed[:0], 512)
					x.EndWrite()
				}
			})
		})
	})
}
