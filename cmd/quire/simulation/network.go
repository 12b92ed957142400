package simulation

import (
	"container/heap"
	"context"
	"errors"

	"go.etcd.io/raft/v3/raftpb"
)

// network carries messages between members: late, twice, out of order, not at
// all.
type network struct {
	queue packets
	seq   int
	cut   map[[2]int]bool // from machine to machine
}

type packet struct {
	at, seq  int64
	from     *machine
	to       uint64
	m        *raftpb.Message
	fromRun  uint64
	attempts int // of a snapshot that had to wait
}

type packets []*packet

func (q packets) Len() int { return len(q) }
func (q packets) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q packets) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *packets) Push(x any)   { *q = append(*q, x.(*packet)) }
func (q *packets) Pop() any {
	old := *q
	p := old[len(old)-1]
	*q = old[:len(old)-1]
	return p
}

// wire is raft.Transport of one run.
type wire struct{ m *member }

// Send implements raft.Transport.
func (t wire) Send(msgs []*raftpb.Message) {
	w := t.m.n.w
	for _, m := range msgs {
		copies := 1
		if w.faulty && m.GetType() != raftpb.MsgSnap {
			switch {
			case w.percent(w.p.loss):
				copies = 0
			case w.percent(w.p.twice):
				copies = 2
			}
		}
		for range copies {
			delay := int64(1 + w.rng.IntN(2))
			if w.faulty && w.percent(w.p.late) {
				delay += int64(w.rng.IntN(w.p.lateSteps))
			}
			w.net.send(&packet{at: w.now + delay, from: t.m.n, fromRun: t.m.run, to: m.GetTo(), m: m})
		}
	}
}

func (net *network) send(p *packet) {
	net.seq++
	p.seq = int64(net.seq)
	heap.Push(&net.queue, p)
}

// passes tells whether anything gets from one machine to another.
func (w *world) passes(from, to *machine) bool { return !w.net.cut[[2]int{from.place, to.place}] }

// deliver hands out what is due. A transfer of a snapshot takes steps of its own,
// in which more is delivered.
func (w *world) deliver() {
	for len(w.net.queue) > 0 && w.net.queue[0].at <= w.now {
		p := heap.Pop(&w.net.queue).(*packet)
		to := w.byID(p.to)
		if to != nil && (to.n.paused() || !w.passes(p.from, to.n)) {
			to = nil
		}
		if p.m.GetType() == raftpb.MsgSnap {
			w.deliverSnapshot(p, to)
			continue
		}
		if to == nil {
			continue
		}
		w.mix(uint64(p.m.GetType()), p.m.GetFrom(), p.to, p.m.GetTerm(), p.m.GetIndex())
		_ = to.raft.Step(p.m) // refusals are part of the game
		to.n.look()
	}
}

var errLine = errors.New("the line is broken")

// deliverSnapshot has the receiver pull the content of a snapshot, then gives it
// the message; the sender is told the end, if it is still there to hear it.
func (w *world) deliverSnapshot(p *packet, to *member) {
	if to != nil && p.attempts < 50 && (w.depth >= 2 || to.staging > 0) {
		// One goroutine cannot stage two at a time. A newer one ends the older.
		to.newer = max(to.newer, p.m.GetSnapshot().GetMetadata().GetIndex())
		p.attempts++
		p.at = w.now + 1 + int64(w.rng.IntN(5))
		w.net.send(p)
		return
	}
	err := errLine
	if to != nil && to.staging == 0 {
		err = w.transfer(p, to)
		w.note("snapshot %d for member %d: %v", p.m.GetSnapshot().GetMetadata().GetIndex(), p.to, err)
	}
	if err == nil && !to.gone() {
		_ = to.raft.Step(p.m)
		to.n.look()
	}
	if from := p.from.m; from != nil && from.run == p.fromRun {
		from.raft.ReportSnapshot(p.to, err == nil)
		p.from.look()
	}
}

// transfer is the way of a snapshot's content. Between two reads the world may go
// on, with both members in it.
func (w *world) transfer(p *packet, to *member) error {
	meta := p.m.GetSnapshot().GetMetadata()
	index, term := meta.GetIndex(), meta.GetTerm()
	from := p.from.m
	if from == nil || from.run != p.fromRun {
		return errLine
	}
	offers := from.engine.Transfers()
	manifest, err := offers.Manifest(index, term)
	if err != nil {
		return err
	}
	defer offers.Release(index, term)
	to.staging = index
	defer func() { to.staging = 0 }()
	return to.engine.Transfers().Stage(context.Background(), index, term, manifest, func(blob uint32, b []byte, off int64) (int, error) {
		if w.depth < 2 && w.percent(30) {
			w.depth++
			for range w.rng.IntN(20) {
				w.step()
			}
			w.depth--
		}
		if from.gone() || to.gone() || from.n.paused() || !w.passes(from.n, to.n) || to.newer > index || w.faulty && w.percent(3) {
			return 0, errLine
		}
		if len(b) > 4096 && w.percent(50) {
			b = b[:4096]
		}
		n, err := offers.ReadAt(index, term, blob, b, off)
		from.n.look()
		return n, err
	})
}
