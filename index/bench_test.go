package index

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
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

func BenchmarkInsert(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		keys := keysOf(n)
		var x *Index
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			if i%n == 0 {
				x = New()
			}
			insertOne(x, keys.at(i%n), int64(i+2))
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		keys := keysOf(n)
		x := fullIndex(n)
		delete(fullIndexes, n)
		main := x.log.lastMain
		r := rand.New(rand.NewPCG(3, 4))
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			main++
			insertOne(x, keys.at(r.IntN(n)), main)
			if i%1000 == 999 {
				// Keep a history of 100,000 revisions, as a cluster does.
				x.BeginWrite()
				x.CompactTo(main - 100_000)
				compactAll(x)
				x.EndWrite()
			}
		}
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
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			if _, ok := x.Get(keys.at(r.IntN(n)), rev); !ok {
				b.Fatal("absent")
			}
		}
	})
}

func BenchmarkScan1000(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		keys, x := keysOf(n), fullIndex(n)
		rev := x.log.lastMain
		r := rand.New(rand.NewPCG(3, 4))
		var s Scanner
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			s.Reset(x, Query{Lo: keys.at(r.IntN(n)), Rev: rev})
			for left := 1000; left > 0; {
				hits := len(s.Next(left))
				if hits == 0 {
					break
				}
				left -= hits
			}
		}
	})
}

func BenchmarkCount5000(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		x := fullIndex(n)
		rev := x.log.lastMain
		var lo, hi [200][]byte
		for i := range lo {
			lo[i] = fmt.Appendf(nil, "/registry/pods/ns-%03d/", i)
			hi[i] = fmt.Appendf(nil, "/registry/pods/ns-%03d0", i)
		}
		b.ReportAllocs()
		b.ResetTimer()
		for i := range b.N {
			if got := x.Count(lo[i%200], hi[i%200], rev); got != int64(n/200) {
				b.Fatal(got)
			}
		}
	})
}

// BenchmarkCountOlder counts at a revision 10,000 updates and creations ago.
func BenchmarkCountOlder(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		x := fullIndex(n)
		lo, hi := []byte("/registry/pods/ns-007/"), []byte("/registry/pods/ns-0070")
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			x.Count(lo, hi, int64(n-10_000))
		}
	})
}

// BenchmarkGetDuringWrites is a reader beside a writer that updates at full
// speed.
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
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			if _, ok := x.Get(keys.at(r.IntN(n)), rev); !ok {
				b.Fatal("absent")
			}
		}
		b.StopTimer()
		close(stop)
		wg.Wait()
		b.ReportMetric(float64(writes)/float64(b.N), "writes/op")
	})
}

// BenchmarkMemory reports the memory per key, with the log of all the puts
// and after compaction.
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
			b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(n), "B/key")
			b.ReportMetric(float64(compacted.HeapAlloc-before.HeapAlloc)/float64(n), "compacted-B/key")
			b.ReportMetric(float64(x.MemBytes())/float64(n), "said-B/key")
			runtime.KeepAlive(keys)
		}
	})
}

// BenchmarkHotKey reads, supersedes and compacts a key with n uncompacted
// versions.
func BenchmarkHotKey(b *testing.B) {
	benchSizes(b, func(b *testing.B, n int) {
		x := New()
		key := []byte("hot")
		for i := range n {
			insertOne(x, key, int64(i+2))
		}
		r := rand.New(rand.NewPCG(3, 4))
		b.Run("get", func(b *testing.B) {
			for range b.N {
				if _, ok := x.Get(key, 2+r.Int64N(int64(n))); !ok {
					b.Fatal("absent")
				}
			}
		})
		b.Run("relocate", func(b *testing.B) {
			x.BeginWrite()
			defer x.EndWrite()
			for range b.N {
				main := 2 + r.Int64N(int64(n))
				if v, ok := x.GetLocked(key, main); !ok || !x.Relocate(Relocation{key, main, 0, v.Loc, v.Loc}) {
					b.Fatal("absent")
				}
			}
		})
		b.Run("update-and-compact", func(b *testing.B) {
			main := x.log.lastMain
			for range b.N {
				main++
				insertOne(x, key, main)
				if main%256 == 0 {
					x.BeginWrite()
					x.CompactTo(main - int64(n))
					x.CompactStep(nil, 256)
					x.EndWrite()
				}
			}
		})
	})
}
