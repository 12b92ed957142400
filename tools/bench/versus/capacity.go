package versus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quire/tools/bench/client"
	"quire/tools/bench/server"
	"quire/tools/bench/trial"
	"quire/tools/bench/usage"
	"quire/tools/bench/workload"
)

// CapacityPair is the capacity part: one Capacity per round and side.
type CapacityPair struct {
	Keys       int               `json:"keys"`
	KeyBytes   int               `json:"key_bytes"`
	ValueBytes int               `json:"value_bytes"`
	Results    [sides][]Capacity `json:"results"`
	Errors     []string          `json:"errors,omitempty"`
}

// Capacity is what a key space costs a server.
type Capacity struct {
	LoadSeconds float64 `json:"load_seconds"`

	LoadedRSS     int64 `json:"loaded_rss_bytes"` // some seconds after the load
	LoadedAnon    int64 `json:"loaded_anon_bytes"`
	PeakRSS       int64 `json:"peak_rss_bytes"` // while loading
	RestartedRSS  int64 `json:"restarted_rss_bytes"`
	RestartedAnon int64 `json:"restarted_anon_bytes"`

	DiskBytes     int64 `json:"disk_bytes"`           // what the files' sizes say
	DiskAllocated int64 `json:"disk_allocated_bytes"` // what they occupy

	// Seconds from the start of the process to its first linearizable read.
	AfterTerm []float64 `json:"restart_seconds_after_sigterm"`
	AfterKill []float64 `json:"restart_seconds_after_sigkill"`
}

// CapacityMetric is one figure of a Capacity; for all of them less is better.
type CapacityMetric struct {
	Name string
	Unit string
	Of   func(Capacity) float64
}

// CapacityMetrics in the order of the tables.
var CapacityMetrics = []CapacityMetric{
	{"resident memory after loading", "MiB", func(c Capacity) float64 { return mib(c.LoadedRSS) }},
	{"… without mapped files", "MiB", func(c Capacity) float64 { return mib(c.LoadedAnon) }},
	{"peak while loading", "MiB", func(c Capacity) float64 { return mib(c.PeakRSS) }},
	{"resident memory after a restart", "MiB", func(c Capacity) float64 { return mib(c.RestartedRSS) }},
	{"… without mapped files", "MiB", func(c Capacity) float64 { return mib(c.RestartedAnon) }},
	{"size on disk", "MiB", func(c Capacity) float64 { return mib(c.DiskAllocated) }},
	{"restart after SIGTERM", "s", func(c Capacity) float64 { return median(c.AfterTerm) }},
	{"restart after SIGKILL", "s", func(c Capacity) float64 { return median(c.AfterKill) }},
	{"time to load", "s", func(c Capacity) float64 { return c.LoadSeconds }},
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// Values are the metric's values of one side, one per round.
func (p CapacityPair) Values(side int, m CapacityMetric) []float64 {
	var vs []float64
	for _, c := range p.Results[side] {
		vs = append(vs, m.Of(c))
	}
	return vs
}

// Median is the median over the rounds.
func (p CapacityPair) Median(side int, m CapacityMetric) float64 { return median(p.Values(side, m)) }

// Ratio says how many times better quire is.
func (p CapacityPair) Ratio(m CapacityMetric) Ratio {
	return ratios(p.Values(Quire, m), p.Values(Upstream, m), false)
}

const (
	// loadLimit bounds the loading of the key space.
	loadLimit = 30 * time.Minute
	// DefaultSettle lets a server finish what it does behind the last write,
	// before its memory is read.
	DefaultSettle = 5 * time.Second
)

// capacitySpec is the load: one put per key, so that each key is a revision.
func (r *runner) capacitySpec() (workload.Spec, error) {
	return workload.Parse("fill@10x10", workload.Spec{Keys: r.opts.CapacityKeys, Seed: 1})
}

// capacity runs the capacity part.
func (r *runner) capacity(ctx context.Context) error {
	spec, err := r.capacitySpec()
	if err != nil {
		return err
	}
	p := &CapacityPair{Keys: spec.Keys, KeyBytes: spec.KeyBytes, ValueBytes: spec.ValueBytes}
	r.out.Capacity = p
	for round := range r.opts.CapacityRounds {
		for side := range sides {
			c, err := r.capacityOf(ctx, side, spec, fmt.Sprintf("%d keys, round %d/%d", spec.Keys, round+1, r.opts.CapacityRounds))
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				p.Errors = append(p.Errors, fmt.Sprintf("round %d, %s: %v", round+1, SideNames[side], err))
				return nil
			}
			p.Results[side] = append(p.Results[side], c)
		}
	}
	return nil
}

func (r *runner) capacityOf(ctx context.Context, side int, spec workload.Spec, task string) (c Capacity, err error) {
	s, err := r.newServer(side)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, s.Remove()) }()
	task += " " + SideNames[side]
	r.show.Begin(task + ": loading")
	if _, err := s.Start(ctx); err != nil {
		return c, err
	}
	loaded, err := trial.Run(ctx, trial.Config{
		Client: client.Options{Endpoints: []string{s.Addr()}, Light: r.opts.Light}, PIDs: []int{s.PID()}, Spec: spec,
		Window: loadLimit, MaxOps: int64(spec.Keys),
		Progress: func(ops int64, done float64) { r.show.Update(done, fmt.Sprintf("%d keys", ops)) },
	})
	if err != nil {
		return c, err
	}
	if loaded.Ops != int64(spec.Keys) {
		return c, fmt.Errorf("loaded %d of %d keys in %v; first error: %q", loaded.Ops, spec.Keys, loadLimit, loaded.FirstError)
	}
	c.LoadSeconds = loaded.Seconds
	held, err := settled(ctx, s, r.opts.Settle)
	if err != nil {
		return c, err
	}
	c.LoadedRSS, c.LoadedAnon, c.PeakRSS = held.RSSBytes, held.AnonBytes, held.PeakBytes
	if c.DiskBytes, c.DiskAllocated, err = s.DiskSize(); err != nil {
		return c, err
	}
	r.show.Begin(task + ": restarts")
	return c, r.restarts(ctx, s, &c)
}

// restarts measures the restarts and the memory after one of them.
func (r *runner) restarts(ctx context.Context, s *server.Server, c *Capacity) error {
	for i := range r.opts.Restarts {
		if err := s.Stop(); err != nil {
			return err
		}
		d, err := s.Start(ctx)
		if err != nil {
			return err
		}
		c.AfterTerm = append(c.AfterTerm, d.Seconds())
		r.show.Update(float64(i)/float64(r.opts.Restarts)/2, "SIGTERM")
	}
	held, err := settled(ctx, s, r.opts.Settle)
	if err != nil {
		return err
	}
	c.RestartedRSS, c.RestartedAnon = held.RSSBytes, held.AnonBytes
	for i := range r.opts.Restarts {
		if err := s.Kill(); err != nil {
			return err
		}
		d, err := s.Start(ctx)
		if err != nil {
			return err
		}
		c.AfterKill = append(c.AfterKill, d.Seconds())
		r.show.Update(0.5+float64(i)/float64(r.opts.Restarts)/2, "SIGKILL")
	}
	return s.Stop()
}

// settled reads the memory of a server that has had time to settle.
func settled(ctx context.Context, s *server.Server, settle time.Duration) (usage.Reading, error) {
	select {
	case <-time.After(settle):
	case <-ctx.Done():
		return usage.Reading{}, ctx.Err()
	}
	return usage.Read([]int{s.PID()})
}
