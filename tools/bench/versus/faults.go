package versus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"quire/tools/bench/client"
	"quire/tools/bench/server"
	"quire/tools/bench/trial"
	"quire/tools/bench/workload"
)

// FaultPair is what happens to clusters when members fail.
type FaultPair struct {
	CatchUpKeys int           `json:"catch_up_keys"`
	Results     [sides]Faults `json:"results"`
	Errors      []string      `json:"errors,omitempty"`
}

// Faults are the figures of one side, one per repetition.
type Faults struct {
	// GapSeconds is the longest time between two answers that a client saw when
	// the leader was killed: the median of the clients.
	GapSeconds []float64 `json:"failover_gap_seconds"`
	// StopGapSeconds is the same for a leader that was asked to stop.
	StopGapSeconds []float64 `json:"stop_gap_seconds"`
	// CatchUpSeconds is from the start of an empty member's process until it has
	// everything.
	CatchUpSeconds []float64 `json:"catch_up_seconds"`
}

// FaultMetric is one figure; for all of them less is better.
type FaultMetric struct {
	Name string
	Of   func(Faults) []float64
}

// FaultMetrics in the order of the table.
var FaultMetrics = []FaultMetric{
	{"longest gap when the leader is killed, s", func(f Faults) []float64 { return f.GapSeconds }},
	{"longest gap when the leader is stopped, s", func(f Faults) []float64 { return f.StopGapSeconds }},
	{"an empty member has caught up, s", func(f Faults) []float64 { return f.CatchUpSeconds }},
}

// Ratio says how many times better quire is.
func (p FaultPair) Ratio(m FaultMetric) Ratio {
	return ratios(m.Of(p.Results[Quire]), m.Of(p.Results[Upstream]), false)
}

const (
	// faultClients write at a time, each one Put after the other.
	faultClients = 8
	// attemptTime is how long a client waits for an answer before it asks
	// another member.
	attemptTime = time.Second
	// steadyTime is the writing before and after a fault.
	steadyTime = 2 * time.Second
	// catchUpLimit bounds a catch-up.
	catchUpLimit = 15 * time.Minute
	// healthTime is how long members must be connected before they let the
	// membership be changed.
	healthTime = 6 * time.Second
)

// faults runs the part about failing members.
func (r *runner) faults(ctx context.Context) error {
	p := &FaultPair{CatchUpKeys: r.opts.CatchUpKeys}
	r.out.Faults = p
	for side := range sides {
		if err := r.faultsOf(ctx, side, &p.Results[side]); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			p.Errors = append(p.Errors, fmt.Sprintf("%s: %v", SideNames[side], err))
		}
	}
	return nil
}

func (r *runner) faultsOf(ctx context.Context, side int, f *Faults) (err error) {
	g, err := r.newGroup(side, r.opts.Members)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Remove()) }()
	if err := g.Start(ctx); err != nil {
		return err
	}
	for i := range r.opts.Failovers {
		r.show.Begin(fmt.Sprintf("fail-over %d/%d %s", i+1, r.opts.Failovers, SideNames[side]))
		for _, kind := range []struct {
			end func(*server.Server) error
			to  *[]float64
		}{{(*server.Server).Kill, &f.GapSeconds}, {(*server.Server).Stop, &f.StopGapSeconds}} {
			gap, err := failover(ctx, g, kind.end)
			if err != nil {
				return err
			}
			*kind.to = append(*kind.to, gap.Seconds())
		}
	}
	if r.opts.CatchUpKeys == 0 {
		return nil
	}
	took, err := r.catchUp(ctx, side, g)
	if err == nil {
		f.CatchUpSeconds = append(f.CatchUpSeconds, took.Seconds())
	}
	return err
}

// lookup finds the leader: its place in the group and the status that names it.
func lookup(ctx context.Context, g *server.Group) (int, *pb.StatusResponse, error) {
	for ctx.Err() == nil {
		for i, s := range g.Servers {
			st, err := status(ctx, s.Addr())
			if err == nil && st.Leader != 0 && st.Header.MemberId == st.Leader {
				return i, st, nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return 0, nil, fmt.Errorf("no leader: %w", ctx.Err())
}

func status(ctx context.Context, addr string) (*pb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTime)
	defer cancel()
	pool, err := client.Open(ctx, client.Options{Endpoints: []string{addr}, Conns: 1})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return pb.NewMaintenanceClient(pool.Conn(0)).Status(ctx, &pb.StatusRequest{})
}

// failover ends the leader while clients write to the others, starts it again, and
// returns the longest gap between two answers, the median of the clients.
func failover(ctx context.Context, g *server.Group, end func(*server.Server) error) (time.Duration, error) {
	find, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	lead, _, err := lookup(find, g)
	if err != nil {
		return 0, err
	}
	var rest []string
	for i, a := range g.Addrs() {
		if i != lead {
			rest = append(rest, a)
		}
	}
	pool, err := client.Open(ctx, client.Options{Endpoints: rest, Conns: len(rest)})
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	writing, stop := context.WithCancel(ctx)
	gaps := make([]time.Duration, faultClients)
	var clients sync.WaitGroup
	for i := range gaps {
		clients.Go(func() { gaps[i] = longestGap(writing, pool, i) })
	}
	time.Sleep(steadyTime)
	err = end(g.Servers[lead])
	time.Sleep(2 * steadyTime)
	if err == nil {
		_, err = g.Servers[lead].Start(ctx)
	}
	time.Sleep(steadyTime)
	stop()
	clients.Wait()
	slices.Sort(gaps)
	return gaps[len(gaps)/2], err
}

// longestGap puts until ctx ends, to another member after each failure, and
// returns the longest time between two answers.
func longestGap(ctx context.Context, pool *client.Pool, i int) (longest time.Duration) {
	key := fmt.Append(nil, "gap/", i)
	last, at := time.Now(), i
	for ctx.Err() == nil {
		try, cancel := context.WithTimeout(ctx, attemptTime)
		_, err := pb.NewKVClient(pool.Conn(at)).Put(try, &pb.PutRequest{Key: key, Value: key})
		cancel()
		if err != nil {
			at++
			time.Sleep(5 * time.Millisecond)
			continue
		}
		now := time.Now()
		longest, last = max(longest, now.Sub(last)), now
	}
	return longest
}

// catchUp fills the cluster, replaces a follower by an empty member and returns how
// long that takes to have everything.
func (r *runner) catchUp(ctx context.Context, side int, g *server.Group) (time.Duration, error) {
	spec, err := workload.Parse("fill@10x10", workload.Spec{Keys: r.opts.CatchUpKeys, ValueBytes: 1024, Seed: 1})
	if err != nil {
		return 0, err
	}
	r.show.Begin(fmt.Sprintf("catch-up: loading %s", SideNames[side]))
	loaded, err := trial.Run(ctx, trial.Config{
		Client: client.Options{Endpoints: g.Addrs(), Light: r.opts.Light}, PIDs: g.PIDs(), Spec: spec, Window: loadLimit, MaxOps: int64(spec.Keys),
		Progress: func(ops int64, done float64) { r.show.Update(done, fmt.Sprintf("%d keys", ops)) },
	})
	if err == nil && loaded.Ops != int64(spec.Keys) {
		err = fmt.Errorf("loaded %d of %d keys; first error: %q", loaded.Ops, spec.Keys, loaded.FirstError)
	}
	if err != nil {
		return 0, err
	}
	r.show.Begin(fmt.Sprintf("catch-up %s", SideNames[side]))
	find, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	lead, st, err := lookup(find, g)
	if err != nil {
		return 0, err
	}
	fresh, err := replace(find, g, lead, (lead+1)%len(g.Servers))
	if err != nil {
		return 0, err
	}
	return awaitAll(find, fresh, st.RaftAppliedIndex)
}

// replace puts a new member in the place of one, and tells the cluster.
func replace(ctx context.Context, g *server.Group, lead, victim int) (*server.Server, error) {
	time.Sleep(healthTime)
	old, err := status(ctx, g.Servers[victim].Addr())
	if err != nil {
		return nil, err
	}
	leader := g.Servers[lead].Addr()
	if err := g.Servers[victim].Kill(); err != nil {
		return nil, err
	}
	fresh, err := g.Replace(victim)
	if err != nil {
		return nil, err
	}
	pool, err := client.Open(ctx, client.Options{Endpoints: []string{leader}, Conns: 1})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	members := pb.NewClusterClient(pool.Conn(0))
	if _, err := members.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: old.Header.MemberId}); err != nil {
		return nil, fmt.Errorf("removing a member: %w", err)
	}
	if _, err := members.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{fresh.PeerURL()}}); err != nil {
		return nil, fmt.Errorf("adding a member: %w", err)
	}
	return fresh, nil
}

// awaitAll starts a server and waits until it has applied up to index.
func awaitAll(ctx context.Context, s *server.Server, index uint64) (time.Duration, error) {
	began := time.Now()
	if _, err := s.Start(ctx); err != nil {
		return 0, err
	}
	for {
		st, err := status(ctx, s.Addr())
		if err == nil && st.RaftAppliedIndex >= index {
			return time.Since(began), nil
		}
		if ctx.Err() != nil {
			return 0, fmt.Errorf("catching up: %w; its log ends with:\n%s", ctx.Err(), s.LogTail())
		}
		time.Sleep(10 * time.Millisecond)
	}
}
