package loop

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Step performs one operation and says how many units it moved: keys of a
// page, events of a fan-out, otherwise 1.
type Step func(ctx context.Context) (units int64, err error)

// Plan is one run.
type Plan struct {
	// Steps has one entry per worker.
	Steps []Step
	// Rate is operations per second over all workers; 0 means closed loop.
	Rate float64
	// WarmUp comes before the window and is not recorded.
	WarmUp time.Duration
	// Window is the measured time.
	Window time.Duration
	// MaxOps, if not 0, ends the window when that many operations of it ended.
	MaxOps int64
	// Grace is how long operations may go on after the window. Default 10 s.
	Grace time.Duration
	// MaxErrors ends the run. Default 1000.
	MaxErrors int64
	// OnWindow is called when the window begins (true) and ends (false), on
	// one goroutine, with the time since the run began.
	OnWindow func(begins bool, at time.Duration)
}

// Outcome is what a run recorded in its window.
type Outcome struct {
	Latency  *hdrhistogram.Histogram // nanoseconds
	Lateness *hdrhistogram.Histogram // open loop: how long after it was due an operation started, nanoseconds
	Ops      int64                   // ended in the window
	Units    int64
	Errors   int64
	Sample   string        // text of the first error
	Elapsed  time.Duration // of the window
}

// Run is one execution of a plan.
type Run struct {
	plan    Plan
	begin   time.Time
	opens   time.Duration // window, since begin
	closes  time.Duration
	shards  []*shard
	tickets atomic.Int64 // operations of the window that have started, when MaxOps counts
	ended   atomic.Int64 // all operations that have ended, for progress
	failed  atomic.Int64
	cancel  context.CancelFunc // ends the steps

	// Open loop only.
	due       chan time.Duration // times at which operations are due, since begin
	pacer     *pacer
	stopPacer context.CancelFunc
}

const (
	defaultGrace     = 10 * time.Second
	defaultMaxErrors = 1000
	// errorPause keeps a worker from spinning on a dead server.
	errorPause = 10 * time.Millisecond
	// maxShards bounds the memory of recorders: two histograms each.
	maxShards = 8
)

// ErrTooManyErrors ends a run; it wraps the first error.
var ErrTooManyErrors = errors.New("too many errors")

// New checks the plan.
func New(plan Plan) (*Run, error) {
	if len(plan.Steps) == 0 || plan.Window <= 0 {
		return nil, fmt.Errorf("a run needs workers and a window, has %d and %v", len(plan.Steps), plan.Window)
	}
	if plan.Rate < 0 || plan.WarmUp < 0 || plan.MaxOps < 0 {
		return nil, fmt.Errorf("rate %g, warm-up %v and operations %d cannot be negative", plan.Rate, plan.WarmUp, plan.MaxOps)
	}
	if plan.Grace == 0 {
		plan.Grace = defaultGrace
	}
	if plan.MaxErrors == 0 {
		plan.MaxErrors = defaultMaxErrors
	}
	r := &Run{plan: plan, opens: plan.WarmUp, closes: plan.WarmUp + plan.Window}
	for range min(len(plan.Steps), maxShards) {
		r.shards = append(r.shards, newShard())
	}
	return r, nil
}

// Ended is the number of operations that have ended so far, with and without
// errors, warm-up included. It may be called while Do runs.
func (r *Run) Ended() int64 { return r.ended.Load() }

// Do executes the plan.
func (r *Run) Do(ctx context.Context) (Outcome, error) {
	ctx, r.cancel = context.WithCancel(ctx)
	defer r.cancel()
	r.begin = time.Now()

	var workers sync.WaitGroup
	if r.plan.Rate > 0 {
		// One place per worker: a due time waits here while all are busy. When
		// it is full the pacer waits, and loses nothing, since the times it
		// sends come from the schedule and not from the clock.
		r.due = make(chan time.Duration, len(r.plan.Steps))
		var pacing context.Context
		pacing, r.stopPacer = context.WithCancel(ctx)
		defer r.stopPacer()
		var err error
		if r.pacer, err = newPacer(r.begin, r.plan.Rate, r.closes); err != nil {
			return Outcome{}, err
		}
		workers.Go(func() { r.pacer.run(pacing, r.due) })
	}
	for i, step := range r.plan.Steps {
		workers.Go(func() { r.work(ctx, step, r.shards[i%len(r.shards)]) })
	}
	finished := make(chan struct{})
	go func() { workers.Wait(); close(finished) }()
	elapsed := r.watch(ctx, finished)
	<-finished
	r.chargeUnstarted()
	return r.outcome(elapsed)
}

// errNotStarted stands for an operation that was due when the run was over.
var errNotStarted = errors.New("due but never started: the rate was not kept up")

// chargeUnstarted records the operations of an open loop that no worker came
// to, with the time they have waited so far. Without it a server that cannot
// keep up would look better the further it falls behind.
func (r *Run) chargeUnstarted() {
	if r.pacer == nil || r.plan.MaxOps > 0 {
		return
	}
	now := time.Since(r.begin)
	charge := func(at time.Duration) {
		r.shards[0].record(observation{due: at, start: now, end: now, err: errNotStarted}, r)
	}
	for at := range r.due {
		charge(at)
	}
	r.pacer.unsent(charge)
}

// watch waits for the window's edges, tells OnWindow and returns the window's
// length. After the grace it cancels what still runs.
func (r *Run) watch(ctx context.Context, finished <-chan struct{}) time.Duration {
	edge := r.plan.OnWindow
	if edge == nil {
		edge = func(bool, time.Duration) {}
	}
	wait := func(until time.Duration) bool {
		t := time.NewTimer(until - time.Since(r.begin))
		defer t.Stop()
		select {
		case <-t.C:
			return true
		case <-finished:
		case <-ctx.Done():
		}
		return false
	}
	wait(r.opens)
	opened := time.Since(r.begin)
	edge(true, opened)
	wait(r.closes)
	closed := time.Since(r.begin)
	edge(false, closed)
	if closed >= r.closes && !wait(r.closes+r.plan.Grace) {
		return closed - opened
	}
	r.cancel()
	return closed - opened
}

// work is one worker.
func (r *Run) work(ctx context.Context, step Step, s *shard) {
	for ctx.Err() == nil {
		due, ok := r.next(ctx)
		if !ok {
			return
		}
		start := time.Since(r.begin)
		units, err := step(ctx)
		end := time.Since(r.begin)
		r.ended.Add(1)
		o := observation{due: due, start: start, end: end, units: units, err: err}
		if r.plan.Rate <= 0 {
			o.due = start
		}
		s.record(o, r)
		if err != nil {
			if r.failed.Add(1) > r.plan.MaxErrors {
				r.cancel()
				return
			}
			pause(ctx, errorPause)
		}
	}
}

// next says whether there is another operation, and in an open loop when it
// was due.
func (r *Run) next(ctx context.Context) (due time.Duration, ok bool) {
	if r.plan.Rate > 0 {
		select {
		case due, ok = <-r.due:
		case <-ctx.Done():
			return 0, false
		}
		if !ok {
			return 0, false
		}
	}
	now := time.Since(r.begin)
	if r.plan.Rate <= 0 && now >= r.closes {
		return 0, false
	}
	if r.plan.MaxOps > 0 && now >= r.opens && r.tickets.Add(1) > r.plan.MaxOps {
		if r.stopPacer != nil {
			r.stopPacer()
		}
		return 0, false
	}
	return due, true
}

// outcome merges the recorders.
func (r *Run) outcome(elapsed time.Duration) (Outcome, error) {
	out := Outcome{Latency: newHistogram(), Lateness: newHistogram(), Elapsed: elapsed}
	for _, s := range r.shards {
		out.Latency.Merge(s.latency)
		out.Lateness.Merge(s.lateness)
		out.Ops += s.ops
		out.Units += s.units
		out.Errors += s.errors
		if out.Sample == "" && s.sample != nil {
			out.Sample = s.sample.Error()
		}
	}
	if r.failed.Load() > r.plan.MaxErrors {
		return out, fmt.Errorf("%w, first: %s", ErrTooManyErrors, out.Sample)
	}
	if out.Ops == 0 && out.Sample != "" {
		return out, fmt.Errorf("no operation succeeded, first error: %s", out.Sample)
	}
	return out, nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
