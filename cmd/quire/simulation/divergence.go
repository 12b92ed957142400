package simulation

import (
	"context"
	"encoding/binary"
	"errors"

	"quire/cmd/quire/corruption"
	"quire/engine"

	pb "quire/api/etcdserverpb"
)

// roundSteps is how often members are compared.
const roundSteps = 40

var errNoAnswer = errors.New("no answer")

// compareConfig joins the comparison of members to the world: questions go where
// messages go, but at once.
func (m *member) compareConfig() corruption.Config {
	n, w := m.n, m.n.w
	return corruption.Config{
		Self: n.id, State: m.engine, Members: m.engine.Members, Alarms: m.engine.Alarms,
		Leads: func() bool { return m.raft.Status().IsLeader },
		Ask: func(ctx context.Context, ids []uint64, _ corruption.Question, body []byte) []corruption.Answer {
			answers := make([]corruption.Answer, len(ids))
			for i, id := range ids {
				to := w.byID(id)
				if to == nil || to.n.paused() || !w.passes(n, to.n) || !w.passes(to.n, n) {
					answers[i].Err = errNoAnswer
					continue
				}
				answers[i].Body, answers[i].Err = corruption.Responder{State: to.engine, Self: id}.Marks(ctx, n.id, body)
			}
			return answers
		},
		Session: func(id uint64) int64 {
			if to := w.byID(id); to != nil {
				return int64(to.run)
			}
			return 0
		},
		Raise: m.raise,
	}
}

// compare makes a round. Until a member was made divergent none may find anything.
func (m *member) compare() {
	before, unequal := m.check.Rounds(), m.check.Unequal()
	m.check.Round(context.Background())
	w := m.n.w
	w.stats.Compared += int(m.check.Rounds() - before)
	if m.check.Unequal() > unequal && !w.diverged {
		w.fail("member %d finds that members differ: %s", m.n.id, w.status())
	}
	m.n.look()
}

// raise proposes the alarm, and does not wait for it.
func (m *member) raise(_ context.Context, id uint64) error {
	w := m.n.w
	if n := w.operator.machineOf(id); n == nil || !n.divergent {
		w.fail("member %d calls member %d divergent", m.n.id, id)
	}
	w.note("member %d names member %d", m.n.id, id)
	return m.proposeUnwatched(engine.OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: id, Alarm: pb.AlarmType_CORRUPT})
}

// unwatched is a waiter that does not care.
type unwatched struct{}

// Applied implements engine.Waiter.
func (unwatched) Applied(*engine.Reply) {}

// Dropped implements engine.Waiter.
func (unwatched) Dropped(error) {}

func (m *member) proposeUnwatched(kind engine.OpKind, req vtMessage) error {
	body, err := req.MarshalVT()
	if err != nil {
		return err
	}
	return m.raft.Propose(engine.AppendOp(nil, kind, body), unwatched{})
}

// diverge changes the store of one member behind the log's back, at the end of a
// run, and demands that it is found.
func (w *world) diverge() {
	ns := w.members()
	if len(ns) < 3 {
		return
	}
	n := ns[w.rng.IntN(len(ns))]
	n.divergent, w.diverged = true, true
	w.watchers = nil // they would rightly complain
	put, err := (&pb.PutRequest{Key: []byte("odd")}).MarshalVT()
	w.check(err, "the odd key")
	op := engine.AppendOp(nil, engine.OpPut, put)
	e := n.m.engine
	e.Apply(e.AppliedIndex(), e.Term(), append(binary.AppendUvarint(nil, uint64(len(op))), op...), nil)
	w.note("member %d has become divergent", n.id)
	if w.percent(50) { // what it remembers of before is lost
		w.check(e.Checkpoint(), "checkpoint of member %d", n.id)
		n.crash("killed", true)
	}
	found := func() bool {
		for _, a := range w.ref.engine.Alarms() {
			if a.MemberID == n.id && a.Alarm == pb.AlarmType_CORRUPT {
				return true
			}
		}
		return false
	}
	for i := byte(0); n.divergent && !found(); i++ { // a snapshot mends it
		if i == 100 {
			w.fail("member %d is divergent, which nobody finds: %s", n.id, w.status())
		}
		m := w.up()
		if m != nil { // marks come with entries
			_ = m.proposeUnwatched(engine.OpPut, &pb.PutRequest{Key: []byte("k00"), Value: []byte{i}})
			m.n.look()
		}
		w.until(roundSteps, found)
	}
	if found() {
		w.stats.Named++
	}
}
