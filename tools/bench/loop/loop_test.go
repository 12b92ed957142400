package loop

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// sleepSteps gives workers whose operations take d.
func sleepSteps(workers int, d time.Duration) []Step {
	steps := make([]Step, workers)
	for i := range steps {
		steps[i] = func(context.Context) (int64, error) {
			time.Sleep(d)
			return 1, nil
		}
	}
	return steps
}

func do(t *testing.T, plan Plan) (Outcome, error) {
	t.Helper()
	r, err := New(plan)
	if err != nil {
		t.Fatal(err)
	}
	return r.Do(t.Context())
}

func TestClosedLoopCountsTheWindowOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var edges []time.Duration
		out, err := do(t, Plan{
			Steps: sleepSteps(4, 10*time.Millisecond), WarmUp: time.Second, Window: 2 * time.Second,
			OnWindow: func(_ bool, at time.Duration) { edges = append(edges, at) },
		})
		if err != nil {
			t.Fatal(err)
		}
		if out.Ops < 4*199 || out.Ops > 4*201 {
			t.Errorf("%d operations in a window of 2 s, want about 800", out.Ops)
		}
		if got := time.Duration(out.Latency.ValueAtQuantile(50)); got < 9*time.Millisecond || got > 11*time.Millisecond {
			t.Errorf("median %v, want 10 ms", got)
		}
		if len(edges) != 2 || edges[0] != time.Second || edges[1] != 3*time.Second {
			t.Errorf("edges at %v, want 1s and 3s", edges)
		}
	})
}

func TestMaxOpsEndsTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out, err := do(t, Plan{Steps: sleepSteps(3, time.Millisecond), Window: time.Hour, MaxOps: 100})
		if err != nil {
			t.Fatal(err)
		}
		if out.Ops != 100 || out.Elapsed > 50*time.Millisecond {
			t.Errorf("%d operations in %v, want 100 in 34 ms", out.Ops, out.Elapsed)
		}
	})
}

// TestOpenLoopChargesAStall runs against a "server" that stands still once for
// 400 ms. A closed loop would see that in one operation per worker; the open
// loop has to charge it to every operation that was due meanwhile.
func TestOpenLoopChargesAStall(t *testing.T) {
	var stalled atomic.Bool
	var begin = time.Now()
	step := func(context.Context) (int64, error) {
		if time.Since(begin) > 300*time.Millisecond && !stalled.Swap(true) {
			time.Sleep(400 * time.Millisecond)
		}
		return 1, nil
	}
	out, err := do(t, Plan{Steps: []Step{step}, Rate: 200, Window: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if out.Latency.TotalCount() != 200 {
		t.Errorf("%d latencies, want one for each of the 200 operations due", out.Latency.TotalCount())
	}
	// 80 of 200 operations were due in the stall, so the 80th percentile lies
	// in its middle.
	if p80 := time.Duration(out.Latency.ValueAtQuantile(80)); p80 < 100*time.Millisecond {
		t.Errorf("80th percentile %v, want about 200 ms: the stall was omitted", p80)
	}
}

func TestOpenLoopChargesWhatNeverStarted(t *testing.T) {
	out, err := do(t, Plan{
		Steps: sleepSteps(1, 50*time.Millisecond), Rate: 1000, Window: 300 * time.Millisecond, Grace: 50 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	if out.Latency.TotalCount() != 300 {
		t.Errorf("%d latencies, want all 300 that were due", out.Latency.TotalCount())
	}
	if out.Errors < 250 || out.Sample == "" {
		t.Errorf("%d errors (%q), want those that never started", out.Errors, out.Sample)
	}
}

// TestOpenLoopIsPunctual compares the pacer with what a plain sleep achieves on
// this machine at this time.
func TestOpenLoopIsPunctual(t *testing.T) {
	before := sleepOvershoot()
	out, err := do(t, Plan{Steps: sleepSteps(10, 0), Rate: 2000, Window: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if out.Ops == 0 || out.Ops > 1000 {
		t.Errorf("%d operations, want at most 1000", out.Ops)
	}
	plain := max(before, sleepOvershoot())
	if late := time.Duration(out.Lateness.ValueAtQuantile(50)); late > 4*plain+time.Millisecond/2 {
		t.Errorf("operations start %v late in the median; a plain sleep ends %v late", late, plain)
	}
}

// sleepOvershoot is the median by which a sleep of half a millisecond is too long.
func sleepOvershoot() time.Duration {
	var over []time.Duration
	for range 101 {
		start := time.Now()
		time.Sleep(500 * time.Microsecond)
		over = append(over, time.Since(start)-500*time.Microsecond)
	}
	slices.Sort(over)
	return over[len(over)/2]
}

func TestErrorsEndTheRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		step := func(context.Context) (int64, error) { return 0, boom }
		out, err := do(t, Plan{Steps: []Step{step, step}, Window: time.Hour, MaxErrors: 20})
		if !errors.Is(err, ErrTooManyErrors) {
			t.Fatalf("got %v, want ErrTooManyErrors", err)
		}
		if out.Sample != "boom" || out.Elapsed > time.Minute {
			t.Errorf("sample %q after %v", out.Sample, out.Elapsed)
		}
	})
}

func TestHungStepsAreCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		step := func(ctx context.Context) (int64, error) { <-ctx.Done(); return 0, ctx.Err() }
		out, err := do(t, Plan{Steps: []Step{step}, Window: time.Second, Grace: time.Second})
		if err == nil || out.Ops != 0 || out.Errors != 1 {
			t.Errorf("%d operations, %d errors, %v; want one error", out.Ops, out.Errors, err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	for _, plan := range []Plan{
		{Window: time.Second},
		{Steps: sleepSteps(1, 0)},
		{Steps: sleepSteps(1, 0), Window: time.Second, Rate: -1},
	} {
		if _, err := New(plan); err == nil {
			t.Errorf("accepted %+v", plan)
		}
	}
}
