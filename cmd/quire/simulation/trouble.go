package simulation

import (
	"context"
	"errors"
	"fmt"

	"quire/engine"
	"quire/raft"

	pb "quire/api/etcdserverpb"
)

// proposalSteps is more than a member keeps a proposal.
const proposalSteps = 800

// fault does something bad.
func (w *world) fault() {
	n := w.machines[w.rng.IntN(len(w.machines))]
	if w.percent(30) { // the leader is where it hurts
		for _, l := range w.machines {
			if l.m != nil && l.m.raft.Status().IsLeader {
				n = l
			}
		}
	}
	switch k := w.rng.IntN(100); {
	case k < 15:
		if n.m != nil {
			n.crash("killed", true)
		}
	case k < 30:
		if n.m != nil && n.powerAt == 0 {
			n.cutPowerSoon()
			w.note("machine %d: power goes at operation %d", n.place, n.powerAt)
		}
	case k < 40:
		if n.m != nil {
			n.diskFault()
		}
	case k < 50:
		n.stalledTo = w.now + int64(w.rng.IntN(400))
		w.note("machine %d: disk stalls", n.place)
	case k < 58:
		n.pausedTo = w.now + int64(w.rng.IntN(500))
		w.note("machine %d: paused", n.place)
	case k < 75:
		w.partition(n)
	case k < 90:
		clear(w.net.cut)
		w.note("the network is whole")
	case k < 95:
		if n.m != nil {
			n.m.raft.Campaign()
			n.look()
		}
	default:
		if n.m != nil && w.nextID > 0 {
			w.moveLeader(n.m, 1+w.rng.Uint64N(w.nextID))
		}
	}
}

// partition cuts a machine off, in both directions or one, from all or some.
func (w *world) partition(n *machine) {
	if w.net.cut == nil {
		w.net.cut = map[[2]int]bool{}
	}
	way := w.rng.IntN(3)
	for _, o := range w.machines {
		if o == n || w.percent(20) {
			continue
		}
		if way != 1 {
			w.net.cut[[2]int{n.place, o.place}] = true
		}
		if way != 2 {
			w.net.cut[[2]int{o.place, n.place}] = true
		}
	}
	w.note("machine %d is cut off, way %d", n.place, way)
}

// moveLeader begins a hand-over and does not wait for it.
func (w *world) moveLeader(m *member, to uint64) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = m.raft.TransferLeadership(ctx, to)
	m.n.look()
}

// recover repairs everything, and demands that the cluster comes to rest with one
// state everywhere.
func (w *world) recover() {
	w.note("everything is repaired")
	clear(w.net.cut)
	for _, n := range w.machines {
		n.pausedTo, n.stalledTo, n.startAt = 0, 0, min(n.startAt, w.now+50)
		n.disk.ClearErrs()
		if n.powerAt > 0 && n.m != nil {
			n.crash("power cut", false)
		}
	}
	// What waits in the members is proposed now or never.
	w.until(proposalSteps, func() bool { return false })
	if !w.until(6000, w.settled) {
		w.fail("no rest after the faults: %s", w.status())
	}
	w.disarm()
	w.lastWrites()
	if !w.until(6000, func() bool { return w.settled() && w.atRest() }) {
		w.fail("no rest after the last writes: %s", w.status())
	}
	w.compareAll()
}

// members returns the machines of the present members.
func (w *world) members() (ns []*machine) {
	for _, m := range w.ref.engine.Members() {
		if n := w.operator.machineOf(m.ID); n != nil {
			ns = append(ns, n)
		}
	}
	return ns
}

// settled: everybody who should run does, and has applied everything.
func (w *world) settled() bool {
	if w.operator.change != nil || len(w.members()) < len(w.ref.engine.Members()) {
		return false
	}
	lead := uint64(0)
	for _, n := range w.members() {
		if n.m == nil {
			return false
		}
		s := n.m.raft.Status()
		if s.Lead == 0 || lead != 0 && lead != s.Lead || s.Applied != s.LastIndex || n.m.engine.AppliedIndex() != w.ref.engine.AppliedIndex() {
			return false
		}
		lead = s.Lead
	}
	for _, c := range w.clients {
		if c.op != nil {
			return false
		}
	}
	return true
}

// disarm takes back the alarms that full disks have raised.
func (w *world) disarm() {
	for _, a := range w.ref.engine.Alarms() {
		w.write("disarm", engine.OpAlarm, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: a.MemberID, Alarm: a.Alarm})
	}
}

// lastWrites has every member take a write and a read.
func (w *world) lastWrites() {
	for _, n := range w.members() {
		w.writeAt(n.m, "last write", engine.OpPut, &pb.PutRequest{Key: []byte("k00"), Value: []byte{byte(n.id)}})
		c := &client{w: w, id: 1000}
		c.op = &operation{c: c, m: n.m, began: w.now, floor: w.floor}
		c.read()
		o := c.op
		if !w.until(3000, func() bool { return o.done }) || o.err != nil {
			w.fail("member %d does not read: %v, %s", n.id, o.err, w.status())
		}
		c.end()
	}
}

func (w *world) write(what string, kind engine.OpKind, req vtMessage) {
	w.writeAt(w.members()[0].m, what, kind, req)
}

// writeAt demands that a member takes a write. A member that is brought up to date
// by a snapshot does not learn what became of its operations in it, and with a
// short log that can happen again and again.
func (w *world) writeAt(m *member, what string, kind engine.OpKind, req vtMessage) {
	for try := 0; ; try++ {
		c := &client{w: w, id: 1000}
		c.op = &operation{c: c, m: m, began: w.now, floor: w.floor}
		c.propose(what, kind, req, false)
		o := c.op
		if !w.until(3000, func() bool { return o.done }) || o.err != nil && (try == 20 || !errors.Is(o.err, raft.ErrTimeout)) {
			w.fail("%s at member %d: %v, %s", what, m.n.id, o.err, w.status())
		}
		if c.end(); o.err == nil {
			return
		}
	}
}

// atRest: the watchers have seen everything and leases that nobody keeps are gone.
func (w *world) atRest() bool {
	for _, x := range w.watchers {
		if !x.caughtUp() {
			return false
		}
	}
	return len(w.ref.engine.Leases()) == 0
}

func (w *world) compareAll() {
	want, err := w.ref.engine.Fingerprint()
	w.check(err, "reference")
	for _, n := range w.members() {
		if got := w.fingerprint(n.m); got != want {
			w.fail("member %d ends with another state than the reference", n.id)
		}
	}
}

// status describes the members, for a failure.
func (w *world) status() (s string) {
	for _, n := range w.machines {
		if n.m == nil {
			s += "\n  machine down, member " + hex(n.id)
			continue
		}
		s += "\n  " + describe(n.m)
	}
	return s
}

func hex(id uint64) string { return fmt.Sprintf("%x", id) }

func describe(m *member) string {
	return fmt.Sprintf("member %x: %+v, engine at %d, in flight %d, leases %d", m.n.id, m.raft.Status(), m.engine.AppliedIndex(), m.log.InFlight(), len(m.engine.Leases()))
}
