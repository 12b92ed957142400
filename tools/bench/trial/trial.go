package trial

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"quire/tools/bench/client"
	"quire/tools/bench/loop"
	"quire/tools/bench/result"
	"quire/tools/bench/usage"
	"quire/tools/bench/workload"
)

// Config is one trial.
type Config struct {
	// Client says where the server is; Conns is taken from Spec.
	Client client.Options
	// PIDs are the server's processes, for CPU and memory; may be empty.
	PIDs []int
	Spec workload.Spec
	// WarmUp comes before the window and is not recorded.
	WarmUp time.Duration
	// Window is the measured time.
	Window time.Duration
	// MaxOps, if not 0, ends the window earlier.
	MaxOps int64
	// Progress, if set, is told several times a second how many operations
	// have ended; done is the elapsed share of the run from 0 to 1.
	Progress func(ops int64, done float64)
}

const (
	// PrepareLimit bounds the writing of the key space: ten million keys take
	// upstream etcd about ten minutes on two cores.
	PrepareLimit = 30 * time.Minute
	// sampleInterval is short enough to show a pause of a second and long
	// enough for the 10 ms ticks of the kernel's CPU accounting.
	sampleInterval = 250 * time.Millisecond
)

// Run prepares and measures.
func Run(ctx context.Context, cfg Config) (res result.Result, err error) {
	prepare, cancel := context.WithTimeout(ctx, PrepareLimit)
	defer cancel()
	opts := cfg.Client
	opts.Conns = cfg.Spec.Conns
	pool, err := client.Open(prepare, opts)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	// Streams outlive the preparation, so they hang on ctx; calls that write
	// the key space are bounded by it too, through the timer below.
	opening, stop := context.WithCancel(ctx)
	defer stop()
	timer := time.AfterFunc(PrepareLimit, stop)
	load, err := workload.Open(opening, cfg.Spec, pool)
	timer.Stop()
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, load.Close()) }()
	for _, pid := range cfg.PIDs {
		_ = usage.ResetPeak(pid) // another user's process keeps its old peak
	}
	return measure(ctx, cfg, load)
}

// edges are the readings at the beginning and the end of the window.
type edges struct {
	server, client [2]usage.Reading
	err            error
}

func (e *edges) take(i int, pids []int) {
	var errServer, errClient error
	e.server[i], errServer = usage.Read(pids)
	e.client[i], errClient = usage.Read([]int{os.Getpid()})
	e.err = errors.Join(e.err, errServer, errClient)
}

func measure(ctx context.Context, cfg Config, load *workload.Load) (result.Result, error) {
	var e edges
	run, err := loop.New(loop.Plan{
		Steps: load.Steps, Rate: cfg.Spec.Rate, WarmUp: cfg.WarmUp, Window: cfg.Window, MaxOps: cfg.MaxOps,
		OnWindow: func(begins bool, _ time.Duration) {
			if begins {
				e.take(0, cfg.PIDs)
			} else {
				e.take(1, cfg.PIDs)
			}
		},
	})
	if err != nil {
		return result.Result{}, err
	}
	begin := time.Now()
	sampler := usage.Start(cfg.PIDs, sampleInterval, func() int64 {
		ops := run.Ended()
		if cfg.Progress != nil {
			cfg.Progress(ops, share(cfg, ops, time.Since(begin)))
		}
		return ops
	})
	out, err := run.Do(ctx)
	points := sampler.Stop()
	if err := errors.Join(err, e.err, ctx.Err()); err != nil {
		return result.Result{}, fmt.Errorf("%s: %w", cfg.Spec.Label(), err)
	}
	return report(cfg, out, load.Unit, points, e), nil
}

// share is how much of the run is over.
func share(cfg Config, ops int64, elapsed time.Duration) float64 {
	s := elapsed.Seconds() / (cfg.WarmUp + cfg.Window).Seconds()
	if cfg.MaxOps > 0 {
		s = max(s, float64(ops)/float64(cfg.MaxOps))
	}
	return min(s, 1)
}

func report(cfg Config, out loop.Outcome, unit string, points []usage.Point, e edges) result.Result {
	seconds := out.Elapsed.Seconds()
	r := result.Result{
		Spec: cfg.Spec, Loop: "closed", Seconds: seconds,
		Ops: out.Ops, OpsPerSecond: float64(out.Ops) / seconds,
		Unit: unit, UnitsPerSecond: float64(out.Units) / seconds,
		Errors: out.Errors, FirstError: out.Sample,
		Latency: result.NewLatency(out.Latency),
		Client:  result.NewCost(e.client[0], e.client[1], out),
		Series:  result.NewSeries(points),
	}
	if cfg.Spec.Rate > 0 {
		r.Loop = "open"
		r.LatenessMicros = float64(out.Lateness.ValueAtQuantile(99)) / 1000
	}
	if len(cfg.PIDs) > 0 {
		c := result.NewCost(e.server[0], e.server[1], out)
		r.Server = &c
	}
	return r
}
