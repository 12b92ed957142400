package corruption

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"quire/engine"
)

const (
	roundInterval = time.Second
	// askTimeout bounds a question about marks, which costs nothing to answer.
	askTimeout = time.Second
	// patience is how many rounds members that differ, without a majority, wait for
	// those that do not answer: an alarm that names nobody stops the writes of all,
	// and a member that restarts is back before.
	patience = 10
	// quietRounds is how many rounds a member that answers may have no mark in common
	// with this one before entries are made for it.
	quietRounds = 3
)

// Continuous is the comparison of rolling hashes. Round and Run belong to one
// goroutine.
type Continuous struct {
	cfg Config
	log *zap.Logger

	doubtful int             // rounds in a row that nobody could decide
	quiet    map[uint64]int  // rounds that a member has had no mark in common with this one
	told     map[uint64]bool // whose divergence was logged, until the alarm is raised
	rounds   atomic.Uint64
	unequal  atomic.Uint64 // of the rounds, those that found a difference
	mu       struct {
		sync.Mutex
		equal map[uint64]verified // by member
	}
}

// verified is the newest mark that a member has had in common with this one, and
// in which of its sessions.
type verified struct {
	mark    engine.RollingMark
	session int64
}

// NewContinuous returns a check that has not compared anything.
func NewContinuous(cfg Config) *Continuous {
	c := &Continuous{cfg: cfg, log: cfg.Logger, told: map[uint64]bool{}, quiet: map[uint64]int{}}
	if c.log == nil {
		c.log = zap.NewNop()
	}
	c.forget()
	return c
}

// Run makes a round every second until ctx ends.
func (c *Continuous) Run(ctx context.Context) {
	every(ctx, roundInterval, func() { c.Round(ctx) })
}

// Verified are the entries up to which members are known to be equal to this one,
// while it leads.
func (c *Continuous) Verified() map[uint64]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := map[uint64]uint64{}
	for id, v := range c.mu.equal {
		all[id] = v.mark.Index
	}
	return all
}

// Rounds is the number of those in which somebody was asked.
func (c *Continuous) Rounds() uint64 { return c.rounds.Load() }

// Unequal is the number of those that found a difference.
func (c *Continuous) Unequal() uint64 { return c.unequal.Load() }

func (c *Continuous) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.equal = map[uint64]verified{}
}

// Round compares once, if this member leads.
func (c *Continuous) Round(ctx context.Context) {
	if !c.cfg.Leads() {
		c.forget()
		c.doubtful = 0
		clear(c.quiet)
		return
	}
	for id := range c.told {
		if c.cfg.alarmed(id) {
			delete(c.told, id) // it is news again when the alarm has been disarmed
		}
	}
	_, newest, ok := c.cfg.State.RollingEnds()
	if !ok {
		return
	}
	ids := c.unverified(newest.Index)
	if len(ids) == 0 {
		return
	}
	c.rounds.Add(1)
	v := c.look(ctx, ids)
	if !v.differs() {
		c.doubtful = 0
		c.stir(ctx, &v)
		return
	}
	c.unequal.Add(1)
	v = c.look(ctx, c.cfg.others())
	c.judge(ctx, decide(len(c.cfg.Members()), c.cfg.Self, v.ballots()))
}

// unverified are the members whose mark of entry newest is not known to be equal,
// or that may have been started anew since, without those that are known to be
// divergent.
func (c *Continuous) unverified(newest uint64) (ids []uint64) {
	others := c.cfg.others()
	c.mu.Lock()
	defer c.mu.Unlock()
	maps.DeleteFunc(c.mu.equal, func(id uint64, _ verified) bool { return !slices.Contains(others, id) })
	maps.DeleteFunc(c.quiet, func(id uint64, _ int) bool { return !slices.Contains(others, id) })
	for _, id := range others {
		v, ok := c.mu.equal[id]
		if (!ok || v.mark.Index < newest || v.session != c.cfg.session(id)) && !c.cfg.alarmed(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// view is what members have of some entries.
type view struct {
	self  uint64
	own   []engine.RollingMark                     // newest first
	marks map[uint64]map[uint64]engine.RollingMark // by member, by entry
}

// look asks members for marks at growing distances from the newest: a member that
// lags has one of them in common with this one, and whoever has come far is
// compared far.
func (c *Continuous) look(ctx context.Context, ids []uint64) view {
	v := view{self: c.cfg.Self, own: samples(c.cfg.State), marks: map[uint64]map[uint64]engine.RollingMark{}}
	sessions := map[uint64]int64{}
	for _, id := range ids {
		sessions[id] = c.cfg.session(id) // before it is asked
	}
	var indices []uint64
	for _, m := range v.own {
		indices = append(indices, m.Index)
	}
	ask, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	for i, a := range c.cfg.Ask(ask, ids, AskMarks, appendIndices(nil, indices)) {
		if marks, err := byIndex(a); err == nil {
			v.marks[ids[i]] = marks
		} else {
			c.log.Debug("cannot compare with a member", zap.String("remote-peer-id", hexID(ids[i])), zap.Error(err))
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, marks := range v.marks {
		for _, own := range v.own {
			if m, ok := marks[own.Index]; ok {
				if m == own && c.mu.equal[id].mark.Index <= m.Index {
					c.mu.equal[id] = verified{m, sessions[id]}
				}
				break
			}
		}
	}
	return v
}

// stir makes entries when a member that answers has no mark in common with this
// one for a while: it has started again, and nobody writes, so that nobody would
// ever know what it has. That is done once, until it has been compared; one that
// has no marks at all is not helped by more.
func (c *Continuous) stir(ctx context.Context, v *view) {
	due := false
	for id, marks := range v.marks {
		if slices.ContainsFunc(v.own, func(own engine.RollingMark) bool { _, ok := marks[own.Index]; return ok }) {
			delete(c.quiet, id)
			continue
		}
		c.quiet[id]++
		due = due || c.quiet[id] == quietRounds
	}
	if !due || c.cfg.Entry == nil {
		return
	}
	_, before, _ := c.cfg.State.RollingEnds()
	for range engine.MarkEvery {
		if err := c.cfg.Entry(ctx); err != nil {
			c.log.Debug("cannot make an entry for comparing members", zap.Error(err))
			return
		}
		if _, now, _ := c.cfg.State.RollingEnds(); now != before {
			return
		}
	}
}

// samples are marks of this member, newest first, each twice as far back as the
// one before.
func samples(s State) (own []engine.RollingMark) {
	oldest, newest, ok := s.RollingEnds()
	for back := uint64(0); ok && len(own) < maxIndices; back = 2*back + engine.MarkEvery {
		if newest.Index < oldest.Index+back {
			break
		}
		if m, ok := s.RollingMark(newest.Index - back); ok {
			own = append(own, m)
		}
	}
	return own
}

func byIndex(a Answer) (map[uint64]engine.RollingMark, error) {
	if a.Err != nil {
		return nil, a.Err
	}
	marks, err := parseMarks(a.Body)
	all := map[uint64]engine.RollingMark{}
	for _, m := range marks {
		all[m.Index] = m
	}
	return all, err
}

// differs tells whether any member has another mark than this one.
func (v *view) differs() bool {
	for _, marks := range v.marks {
		for _, own := range v.own {
			if m, ok := marks[own.Index]; ok && m != own {
				return true
			}
		}
	}
	return false
}

func (v *view) ballots() (all []ballot) {
	for _, own := range v.own {
		b := ballot{own.Index, map[uint64]engine.RollingMark{v.self: own}}
		for id, marks := range v.marks {
			if m, ok := marks[own.Index]; ok {
				b.marks[id] = m
			}
		}
		all = append(all, b)
	}
	return all
}

// judge raises the alarms that follow from a verdict.
func (c *Continuous) judge(ctx context.Context, v verdict) {
	for _, w := range v.wrong {
		if c.cfg.alarmed(w.member) {
			continue
		}
		if !c.told[w.member] {
			c.tell(ctx, w)
		}
		c.raise(ctx, w.member)
	}
	if !v.open {
		c.doubtful = 0
		return
	}
	c.doubtful++
	if c.cfg.alarmed(0) || !v.complete && c.doubtful < patience {
		return
	}
	if !c.told[0] {
		c.log.Error("members differ and there is no majority that would tell which are divergent, so the alarm names none",
			zap.String("local-member-id", hexID(c.cfg.Self)), zap.Bool("all-members-answered", v.complete))
		c.told[0] = true
	}
	c.raise(ctx, 0)
}

func (c *Continuous) raise(ctx context.Context, id uint64) {
	if err := c.cfg.Raise(ctx, id); err != nil {
		c.log.Warn("cannot raise the alarm of a divergent member; it will be tried again", zap.String("member-id", hexID(id)), zap.Error(err))
	}
}

// tell logs where a member began to differ.
func (c *Continuous) tell(ctx context.Context, w divergent) {
	c.told[w.member] = true
	var equal engine.RollingMark
	c.mu.Lock()
	switch c.cfg.Self {
	case w.right:
		equal = c.mu.equal[w.member].mark
	case w.member:
		equal = c.mu.equal[w.right].mark
	}
	c.mu.Unlock()
	d, err := search(ctx, c.marksOf(w.right), c.marksOf(w.member), equal, w.index)
	fields := []zap.Field{zap.String("member-id", hexID(w.member)), zap.String("compared-with", hexID(w.right)),
		zap.Uint64("last-equal-entry", d.equal.Index), zap.Uint64("first-different-entry", d.right.Index),
		zap.Int64("first-different-revision", d.equal.Revision+1), zap.Int64("last-different-revision", max(d.right.Revision, d.wrong.Revision)),
		zap.Int64("majority-revision", d.right.Revision), zap.Int64("member-revision", d.wrong.Revision)}
	if d.equal.Index == 0 {
		fields = append(fields, zap.Bool("may-have-begun-before-what-is-remembered", true))
	}
	if err != nil {
		fields = append(fields, zap.Error(err))
	}
	c.log.Error("a member is divergent: it has made something else of the log than the majority", fields...)
}

// marksOf asks a member for marks, or looks at this one's.
func (c *Continuous) marksOf(id uint64) marksFrom {
	return func(ctx context.Context, indices []uint64) (map[uint64]engine.RollingMark, error) {
		body := appendIndices(nil, indices)
		if id == c.cfg.Self {
			own, err := Responder{State: c.cfg.State}.Marks(ctx, id, body)
			return byIndex(Answer{own, err})
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		return byIndex(c.cfg.Ask(ctx, []uint64{id}, AskMarks, body)[0])
	}
}
