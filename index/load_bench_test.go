package index

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkLoad loads versions that come in the order of their revisions, on
// as many workers as processors (-cpu), and reports the time per version.
func BenchmarkLoad(b *testing.B) {
	cases := []struct{ keys, versions int }{{1_000_000, 1_000_000}, {1_000_000, 3_000_000}}
	if *bigFlag && !testing.Short() {
		cases = append(cases, struct{ keys, versions int }{10_000_000, 10_000_000})
	}
	for _, c := range cases {
		b.Run(fmt.Sprintf("%dM-versions-of-%dM-keys", c.versions/1_000_000, c.keys/1_000_000), func(b *testing.B) {
			keys := keysOf(c.keys)
			b.ReportAllocs()
			b.ResetTimer()
			var add time.Duration
			cpu := cpuTime()
			for range b.N {
				x, took := loadBench(keys, c.keys, c.versions)
				add += took
				if got := x.Stats().Versions; got != int64(c.versions) {
					b.Fatal(got)
				}
			}
			b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(b.N*c.versions), "cpu-ns/version")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*c.versions), "ns/version")
			b.ReportMetric(float64(add.Nanoseconds())/float64(b.N*c.versions), "add-ns/version")
		})
	}
}

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		panic(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// loadBench loads in runs of 50,000 versions, as page segments hold them.
func loadBench(keys *benchKeys, n, versions int) (*Index, time.Duration) {
	start := time.Now()
	const run = 50_000
	workers := runtime.GOMAXPROCS(0)
	x := New()
	l := x.NewLoader(LoadOptions{Workers: workers})
	runs := make(chan int, (versions+run-1)/run)
	for from := 0; from < versions; from += run {
		runs <- from
	}
	close(runs)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for from := range runs {
				for i := from; i < min(from+run, versions); i++ {
					v := Version{Main: int64(i + 2), Create: int64(i%n + 2), Ver: int64(i/n + 1), Loc: Loc(i + 1)}
					if err := l.Add(w, keys.at(i%n), v); err != nil {
						panic(err)
					}
				}
			}
		})
	}
	wg.Wait()
	add := time.Since(start)
	if err := l.Finish(0); err != nil {
		panic(err)
	}
	return x, add
}
