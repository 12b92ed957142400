package simulation

import (
	"quire/engine"
	"quire/raft"

	"go.etcd.io/raft/v3/raftpb"

	pb "quire/api/etcdserverpb"
)

// operator changes the membership, one change at a time.
type operator struct {
	w      *world
	change *change
	next   int64
}

// change is one under way.
type change struct {
	kind  uint64
	id    uint64
	m     *member
	began int64
	done  bool
	err   error
}

// Applied implements engine.Waiter.
func (c *change) Applied(r *engine.Reply) { c.done, c.err = true, r.Err }

// Dropped implements engine.Waiter.
func (c *change) Dropped(err error) { c.done, c.err = true, err }

const (
	addVoter   = uint64(raftpb.ConfChangeAddNode)
	remove     = uint64(raftpb.ConfChangeRemoveNode)
	addLearner = uint64(raftpb.ConfChangeAddLearnerNode)
)

// turn is the operator's share of a step.
func (op *operator) turn(w *world) {
	op.w = w
	switch {
	case op.change != nil:
		op.look()
	case w.now%50 == 0:
		op.settle()
		op.replace()
	case w.faulty && w.p.spares > 0 && w.now >= op.next:
		op.next = w.now + int64(100+w.rng.IntN(400))
		op.begin()
	}
}

// look waits for the end of a change. What became of one without an answer is
// seen by what the reference knows.
func (op *operator) look() {
	w, c := op.w, op.change
	if !c.done && !c.m.gone() && w.now-c.began < patience {
		return
	}
	// It may still be under way. Nothing else is begun before it is settled one
	// way or the other: the patience is long, and raft refuses two at a time.
	op.change = nil
	op.settle()
}

// settle starts members that have been added and wipes machines whose member has
// been removed.
func (op *operator) settle() {
	w := op.w
	known := map[uint64]bool{}
	for _, m := range w.ref.engine.Members() {
		known[m.ID] = true
	}
	for _, m := range w.ref.engine.Members() {
		if op.machineOf(m.ID) == nil {
			n := op.free()
			if n == nil { // a change that was given up has been made after all
				n = newMachine(w, len(w.machines))
				w.machines = append(w.machines, n)
			}
			n.id, n.startAt = m.ID, w.now
			w.note("machine %d takes member %d", n.place, n.id)
		}
	}
	for _, n := range w.machines {
		if n.id != 0 && !known[n.id] && w.percent(30) {
			n.wipe()
		}
	}
}

// replace removes a member whose data is lost; another one is added in its place
// later. When the faults have ended, damaged stores are rebuilt, before they have to.
func (op *operator) replace() {
	w := op.w
	for _, n := range w.machines {
		if !n.lost && n.damaged && !n.logDamaged && !w.faulty {
			n.heal()
		}
		if !n.lost {
			continue
		}
		m := w.up()
		if m == nil || w.ref.engine.Removed(n.id) {
			return
		}
		op.propose(&change{m: m, began: w.now, kind: remove, id: n.id})
		return
	}
}

func (op *operator) machineOf(id uint64) *machine {
	for _, n := range op.w.machines {
		if n.id == id {
			return n
		}
	}
	return nil
}

func (op *operator) free() *machine {
	for _, n := range op.w.machines {
		if n.id == 0 {
			return n
		}
	}
	return nil
}

// begin proposes a change that makes sense.
func (op *operator) begin() {
	w := op.w
	op.settle()
	m := w.up()
	if m == nil {
		return
	}
	var voters, learners []*pb.Member
	for _, x := range w.ref.engine.Members() {
		if x.IsLearner {
			learners = append(learners, x)
		} else {
			voters = append(voters, x)
		}
	}
	c := &change{m: m, began: w.now}
	switch k := w.rng.IntN(4); {
	case k < 2 && len(learners) > 0 && op.ready(learners[0].ID):
		c.kind, c.id = addVoter, learners[0].ID
	case k < 3 && op.free() != nil && len(learners) == 0:
		w.nextID++
		c.kind, c.id = addLearner, w.nextID
		if w.percent(30) && len(voters) >= 3 {
			c.kind = addVoter
		}
	case len(voters) > 3 || len(learners) > 0:
		all := append(learners, voters...)
		if len(voters) <= 3 {
			all = learners
		}
		c.kind, c.id = remove, all[w.rng.IntN(len(all))].ID
	default:
		return
	}
	op.propose(c)
}

// ready tells whether a learner has come close to the leader, as etcd demands.
func (op *operator) ready(id uint64) bool {
	m := op.w.byID(id)
	return m != nil && m.engine.AppliedIndex()+20 > op.w.ref.engine.AppliedIndex()
}

func (op *operator) propose(c *change) {
	w := op.w
	cc := engine.ConfChange{Kind: c.kind, Node: c.id}
	known := false
	for _, x := range w.ref.engine.Members() {
		known = known || x.ID == c.id
	}
	if c.kind != remove && !known {
		cc.Member = newPeer(c.id)
	}
	b, err := engine.EncodeConfChange(cc)
	w.check(err, "membership change")
	if err := c.m.raft.ProposeConfChange(b, c); err != nil {
		return
	}
	w.note("change %d of member %d at member %d", c.kind, c.id, c.m.n.id)
	w.stats.Members++
	op.change = c
	c.m.n.look()
}

var _ engine.Waiter = (*change)(nil)
var _ raft.Waiter = (*change)(nil)
