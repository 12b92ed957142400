package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

// Most of the heap is the index and page frames: memory without pointers, which
// the collector marks by the megabyte in microseconds. Go's default would let
// garbage grow to the size of all that. So the percentage is set after each
// collection such that the headroom is gcHeadroom, or a fifth of what lives if
// that is more. Small heaps get more than the default and collect less often.
const gcHeadroom = 32 << 20

// gcTuner adjusts the collector after each of its cycles until stopped.
type gcTuner struct {
	stopped atomic.Bool
	percent int
	sample  []metrics.Sample
}

// tuneGC starts a tuner, unless the user chose with GOGC.
func tuneGC() *gcTuner {
	t := &gcTuner{percent: 100, sample: []metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
	if os.Getenv("GOGC") != "" {
		t.stopped.Store(true)
		return t
	}
	t.afterCycle()
	return t
}

func (t *gcTuner) stop() { t.stopped.Store(true) }

// sentinel is collected in the next cycle, which is how the tuner learns of it.
// It has a pointer, so that it is not merged with other tiny objects.
type sentinel struct{ t *gcTuner }

func (t *gcTuner) afterCycle() {
	if t.stopped.Load() {
		return
	}
	metrics.Read(t.sample)
	if p := gcPercent(t.sample[0].Value.Uint64()); p*10 > t.percent*11 || p*11 < t.percent*10 {
		t.percent = p
		debug.SetGCPercent(p)
	}
	runtime.SetFinalizer(&sentinel{t}, func(s *sentinel) { s.t.afterCycle() })
}

// gcPercent returns the GOGC value for so many live bytes.
func gcPercent(live uint64) int {
	live = max(live, 1<<20)
	return int(max(gcHeadroom*100/live, 20))
}
