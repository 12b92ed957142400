package versus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sys/unix"

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

// faults runs the part about failing members. Both clusters run all the time,
// and take their turns: what disturbs the machine meanwhile meets both alike, and
// one that has nothing to do takes next to nothing from the other.
func (r *runner) faults(ctx context.Context) (err error) {
	p := &FaultPair{CatchUpKeys: r.opts.CatchUpKeys}
	r.out.Faults = p
	var groups [sides]*server.Group
	for side := range sides {
		g, err := r.newGroup(side, r.opts.Members)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, g.Remove()) }()
		groups[side] = g
	}
	steps := []faultStep{{"starting", 1, func(ctx context.Context, side int, g *server.Group) error { return g.Start(ctx) }}}
	steps = append(steps, faultStep{"fail-over", r.opts.Failovers, func(ctx context.Context, side int, g *server.Group) error {
		return failovers(ctx, g, &p.Results[side])
	}})
	if r.opts.CatchUpKeys > 0 && r.opts.CatchUps > 0 {
		steps = append(steps, faultStep{"loading", 1, r.load}, faultStep{"catch-up", r.opts.CatchUps, func(ctx context.Context, side int, g *server.Group) error {
			return catchUp(ctx, g, &p.Results[side])
		}})
	}
	for _, s := range steps {
		for i := range s.times {
			for side, g := range groups {
				if g == nil {
					continue // it failed before
				}
				r.show.Begin(fmt.Sprintf("%s %d/%d %s", s.name, i+1, s.times, SideNames[side]))
				if err := s.run(ctx, side, g); err != nil {
					if ctx.Err() != nil {
						return ctx.Err()
					}
					p.Errors = append(p.Errors, fmt.Sprintf("%s: %s %d: %v", SideNames[side], s.name, i+1, err))
					groups[side] = nil
				}
			}
		}
	}
	return nil
}

// faultStep is done to each cluster in turn.
type faultStep struct {
	name  string
	times int
	run   func(ctx context.Context, side int, g *server.Group) error
}

// failovers ends the leader in both ways.
func failovers(ctx context.Context, g *server.Group, f *Faults) error {
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
	return nil
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

// catchUpBatch is the number of keys in one transaction while a cluster is
// filled: enough to be quick, and few enough that there are far more entries than
// either server keeps for members that lag.
const catchUpBatch = 10

// load fills a cluster with what a wiped member will have to catch up with.
func (r *runner) load(ctx context.Context, side int, g *server.Group) error {
	spec, err := workload.Parse("range@10x1", workload.Spec{Keys: r.opts.CatchUpKeys, ValueBytes: 1024, LoadBatch: catchUpBatch, Seed: 1})
	if err != nil {
		return err
	}
	_, err = trial.Run(ctx, trial.Config{
		Client: client.Options{Endpoints: g.Addrs(), Light: r.opts.Light}, PIDs: g.PIDs(), Spec: spec, Window: loadLimit, MaxOps: 1,
	})
	return err
}

// catchUp replaces a follower by an empty member and notes how long that takes
// to have everything.
func catchUp(ctx context.Context, g *server.Group, f *Faults) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpLimit)
	defer cancel()
	lead, st, err := lookup(ctx, g)
	if err != nil {
		return err
	}
	victim := (lead + 1 + len(f.CatchUpSeconds)%(len(g.Servers)-1)) % len(g.Servers)
	fresh, err := replace(ctx, g, lead, victim)
	if err != nil {
		return err
	}
	took, err := awaitAll(ctx, fresh, st.RaftAppliedIndex)
	if err == nil {
		f.CatchUpSeconds = append(f.CatchUpSeconds, took.Seconds())
	}
	return err
}

// replace puts a new member in the place of one, and tells the cluster.
func replace(ctx context.Context, g *server.Group, lead, victim int) (*server.Server, error) {
	unix.Sync() // what earlier steps have left to be written is not this one's
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
