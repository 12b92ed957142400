package usage

import (
	"sync"
	"time"
)

// Point is one sample; At is since the sampler began.
type Point struct {
	At      time.Duration
	Reading Reading
	Ops     int64 // what the sampler's counter said
}

// maxPoints bounds a series: at the default interval a run of 30 minutes.
const maxPoints = 10_000

// Sampler takes readings at an interval.
type Sampler struct {
	pids  []int
	ops   func() int64
	begin time.Time
	stop  chan struct{}
	done  sync.WaitGroup

	points []Point // the goroutine's until done
}

// Start begins sampling the processes (which may be none) and the counter.
func Start(pids []int, interval time.Duration, ops func() int64) *Sampler {
	s := &Sampler{pids: pids, ops: ops, begin: time.Now(), stop: make(chan struct{})}
	s.sample()
	s.done.Go(func() {
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				s.sample()
			case <-s.stop:
				return
			}
		}
	})
	return s
}

// Stop takes a last sample and returns the series.
func (s *Sampler) Stop() []Point {
	close(s.stop)
	s.done.Wait()
	s.sample()
	return s.points
}

// sample skips a reading that fails: whoever needs the process alive finds out
// from its own readings at the window's edges.
func (s *Sampler) sample() {
	if len(s.points) >= maxPoints {
		return
	}
	r, err := Read(s.pids)
	if err != nil {
		return
	}
	s.points = append(s.points, Point{At: time.Since(s.begin), Reading: r, Ops: s.ops()})
}
