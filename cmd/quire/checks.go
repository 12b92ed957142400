package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/cmd/quire/corruption"
	"quire/engine"
	"quire/raft/peer"
)

// checks compare this member's data with that of the others (package corruption).
type checks struct {
	m          *member
	continuous *corruption.Continuous
	hashes     *corruption.Hashes
}

func (m *member) newChecks() *checks {
	c := &checks{m: m}
	c.continuous = corruption.NewContinuous(c.config(false))
	c.hashes = corruption.NewHashes(c.config(false))
	return c
}

// config joins the checks to the member's parts. patient: members that are not
// connected are waited for.
func (c *checks) config(patient bool) corruption.Config {
	m := c.m
	return corruption.Config{
		Self: m.id, State: m.engine, Members: m.engine.Members, Alarms: m.engine.Alarms,
		Leads: func() bool { return m.raftStatus().IsLeader },
		Ask: func(ctx context.Context, ids []uint64, q corruption.Question, body []byte) []corruption.Answer {
			return c.ask(ctx, ids, q, body, patient)
		},
		Session: func(id uint64) int64 { return m.transport.ActiveSince(id).UnixNano() },
		Raise:   c.raise,
		Entry:   c.entry,
		Confirm: m.linearize, RequestTimeout: requestTime(m.cfg), Logger: m.log,
	}
}

// callOf are the numbers of the questions in the peer protocol.
var callOf = map[corruption.Question]peer.Method{corruption.AskHash: callHashKV, corruption.AskMarks: callMarks}

var errNotConnected = errors.New("the member is not connected")

// ask asks all at once. Nobody waits for a member that is down.
func (c *checks) ask(ctx context.Context, ids []uint64, q corruption.Question, body []byte, patient bool) []corruption.Answer {
	answers := make([]corruption.Answer, len(ids))
	var all sync.WaitGroup
	for i, id := range ids {
		if !patient && c.m.transport.ActiveSince(id).IsZero() {
			answers[i].Err = errNotConnected
			continue
		}
		all.Go(func() { answers[i].Body, answers[i].Err = c.m.transport.Call(ctx, id, callOf[q], body) })
	}
	all.Wait()
	return answers
}

// raise proposes the alarm, and waits a request's time for it.
func (c *checks) raise(ctx context.Context, id uint64) error {
	return c.propose(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: pb.AlarmType_CORRUPT})
}

// entry has an entry made that does nothing: a question about alarms.
func (c *checks) entry(ctx context.Context) error {
	return c.propose(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
}

func (c *checks) propose(ctx context.Context, req *pb.AlarmRequest) error {
	body, err := req.MarshalVT()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTime(c.m.cfg))
	defer cancel()
	return c.m.proposeAndWait(ctx, engine.AppendOp(nil, engine.OpAlarm, body))
}

// run makes the checks that the settings ask for, until ctx ends.
func (c *checks) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { c.continuous.Run(ctx) })
	all.Go(func() { c.endWatches(ctx) })
	if every := c.m.cfg.CorruptCheck; every > 0 {
		all.Go(func() { c.hashes.RunPeriodic(ctx, every) })
	}
	if c.m.cfg.Features.Enabled(gateCompactHashCheck) {
		// Of its own, because each belongs to one goroutine.
		compaction := corruption.NewHashes(c.config(false))
		all.Go(func() { compaction.RunCompaction(ctx, c.m.cfg.CompactHashCheck) })
	}
}

// watchPoll is how often endWatches looks.
const watchPoll = 250 * time.Millisecond

// endWatches has the watches of this member ended when its own alarm is raised:
// others can tell what it may have told wrongly.
func (c *checks) endWatches(ctx context.Context) {
	was := false
	every(ctx, watchPoll, func() {
		is := c.m.engine.Divergent()
		if is && !was {
			c.m.hub.Recheck()
		}
		was = is
	})
}

// initial compares what the member had before this start with the others, before
// it serves anybody, if the gate is open.
func (c *checks) initial(ctx context.Context) error {
	if !c.m.cfg.Features.Enabled(gateInitialCorruptCheck) {
		return nil
	}
	caughtUp, cancel := context.WithTimeout(ctx, requestTime(c.m.cfg))
	defer cancel()
	if err := c.m.awaitCommitted(caughtUp); err != nil && caughtUp.Err() == nil {
		return err
	}
	began := time.Now()
	err := corruption.NewHashes(c.config(true)).Initial(ctx)
	if err != nil {
		c.m.log.Error("checkInitialHashKV failed", zap.Error(err), zap.Duration("took", time.Since(began)))
	}
	return err
}

// checkMetrics shows how far the continuous check has come.
type checkMetrics struct {
	check            *corruption.Continuous
	verified, rounds *prometheus.Desc
}

func newCheckMetrics(c *corruption.Continuous) *checkMetrics {
	return &checkMetrics{
		check: c,
		verified: prometheus.NewDesc("quire_corruption_verified_entry",
			"The log entry up to which a member is known to be equal to the leader; only the leader knows.", []string{"Remote"}, nil),
		rounds: prometheus.NewDesc("quire_corruption_rounds_total",
			"Rounds in which this member, leading, compared others with itself, by whether all were equal.", []string{"result"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (c *checkMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- c.verified; ch <- c.rounds }

// Collect implements prometheus.Collector.
func (c *checkMetrics) Collect(ch chan<- prometheus.Metric) {
	for id, entry := range c.check.Verified() {
		ch <- prometheus.MustNewConstMetric(c.verified, prometheus.GaugeValue, float64(entry), hex(id))
	}
	unequal := c.check.Unequal()
	ch <- prometheus.MustNewConstMetric(c.rounds, prometheus.CounterValue, float64(c.check.Rounds()-min(unequal, c.check.Rounds())), "equal")
	ch <- prometheus.MustNewConstMetric(c.rounds, prometheus.CounterValue, float64(unequal), "unequal")
}
