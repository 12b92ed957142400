package versus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"quire/tools/bench/client"
	"quire/tools/bench/host"
	"quire/tools/bench/result"
	"quire/tools/bench/server"
	"quire/tools/bench/trial"
	"quire/tools/bench/workload"
)

// Reporter is told how far the comparison is.
type Reporter interface {
	Begin(task string)
	Update(done float64, note string)
}

// runner is one comparison under way.
type runner struct {
	opts     Options
	binaries [sides]string
	show     Reporter
	out      *Comparison
}

// Run compares. With an error it still returns what was measured before, or
// nil if nothing was.
func Run(ctx context.Context, opts Options, show Reporter) (*Comparison, error) {
	r := &runner{opts: opts, show: show}
	if err := r.prepare(ctx); err != nil {
		return nil, err
	}
	defer func() { r.out.Finished = time.Now().UTC().Truncate(time.Second) }()
	for _, spec := range opts.Specs {
		if opts.Rounds == 0 {
			break
		}
		if err := r.pair(ctx, spec); err != nil {
			return r.out, err
		}
	}
	if opts.Members > 1 {
		return r.out, r.faults(ctx)
	}
	if opts.CapacityKeys > 0 && opts.CapacityRounds > 0 {
		return r.out, r.capacity(ctx)
	}
	return r.out, nil
}

// prepare finds or builds the binaries and notes versions and host.
func (r *runner) prepare(ctx context.Context) error {
	r.binaries = [sides]string{r.opts.QuirePath, r.opts.UpstreamPath}
	build := [sides]func(context.Context) (string, error){server.BuildQuire, server.BuildUpstream}
	r.out = &Comparison{
		Command: r.opts.Command, Rounds: r.opts.Rounds, Quota: r.opts.QuotaBytes,
		Servers: r.opts.ServerCPUs.String(), Client: r.opts.ClientCPUs.String(),
		Light: r.opts.Light, Members: r.opts.Members,
		WarmUp: r.opts.WarmUp.Seconds(), Window: r.opts.Window.Seconds(),
		Flags: [sides][]string{r.opts.QuireFlags, r.opts.UpstreamFlags},
	}
	for side := range sides {
		var err error
		if r.binaries[side] == "" {
			r.show.Begin("building " + SideNames[side])
			if r.binaries[side], err = build[side](ctx); err != nil {
				return err
			}
		}
		if r.out.Versions[side], err = server.Version(ctx, r.binaries[side]); err != nil {
			return err
		}
	}
	var err error
	r.out.Host, err = host.Read(r.opts.Dir)
	return err
}

// pair runs one workload for all rounds. Only an interruption or a full disk
// ends the comparison.
func (r *runner) pair(ctx context.Context, spec workload.Spec) error {
	p := Pair{Spec: spec}
	defer func() { r.out.Pairs = append(r.out.Pairs, p) }()
	for round := range r.opts.Rounds {
		for side := range sides {
			res, err := r.trial(ctx, side, spec, fmt.Sprintf("%s round %d/%d", spec.Label(), round+1, r.opts.Rounds))
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, errDiskFull) {
				return err
			}
			if err != nil {
				p.Errors = append(p.Errors, fmt.Sprintf("round %d, %s: %v", round+1, SideNames[side], err))
				return nil // the other rounds would have no partner
			}
			p.Results[side] = append(p.Results[side], res)
		}
	}
	return nil
}

var errDiskFull = errors.New("too little space left for a benchmark")

// newServer makes a server of the side, not yet started.
func (r *runner) newServer(side int) (*server.Server, error) {
	g, err := r.newGroup(side, 1)
	if err != nil {
		return nil, err
	}
	return g.Servers[0], nil
}

// newGroup makes a cluster of the side, not yet started.
func (r *runner) newGroup(side, members int) (*server.Group, error) {
	free, err := host.FreeBytes(r.opts.Dir)
	if err != nil {
		return nil, err
	}
	if free < minFreeBytes {
		return nil, fmt.Errorf("%w: %d MiB free", errDiskFull, free>>20)
	}
	return server.NewGroup(server.Config{
		Side: SideNames[side], Binary: r.binaries[side], ParentDir: r.opts.Dir,
		QuotaBytes: r.opts.QuotaBytes, Flags: r.out.Flags[side], CPUs: r.opts.ServerCPUs,
	}, members)
}

// trial runs one workload once against a new server.
func (r *runner) trial(ctx context.Context, side int, spec workload.Spec, task string) (res result.Result, err error) {
	g, err := r.newGroup(side, r.opts.Members)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, g.Remove()) }()
	r.show.Begin(fmt.Sprintf("%s %s", task, SideNames[side]))
	if err := g.Start(ctx); err != nil {
		return res, err
	}
	res, err = trial.Run(ctx, trial.Config{
		Client: client.Options{Endpoints: g.Addrs(), Light: r.opts.Light}, PIDs: g.PIDs(), Spec: spec,
		WarmUp: r.opts.WarmUp, Window: r.opts.Window, MaxOps: r.opts.MaxOps,
		Progress: func(ops int64, done float64) { r.show.Update(done, fmt.Sprintf("%d ops", ops)) },
	})
	return res, errors.Join(err, g.Stop())
}
