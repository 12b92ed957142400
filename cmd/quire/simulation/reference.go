package simulation

import (
	"bytes"
	"encoding/binary"
	"hash/fnv"
	"slices"

	"quire/disk"
	"quire/engine"
	"quire/pagestore"
	"quire/raft"

	pb "quire/api/etcdserverpb"
)

// printEvery is how often, in entries, states are compared.
const printEvery = 16

// reference is what the members are compared with: an engine to which each entry
// is applied once.
type reference struct {
	w      *world
	engine *engine.Engine
	log    map[uint64]entryPrint
	prints map[uint64]uint64 // fingerprint by index
	events []engine.Event    // all
	// replies are what each operation of an entry answers.
	replies map[uint64][]answer
	// issued are the operations that may be applied once, by their bytes, and void
	// those that never may.
	issued map[string]uint64
	void   map[string]bool
	// promises say until when a lease must live, in steps.
	promises map[int64]int64
	replying *[]answer
}

type entryPrint struct{ term, sum uint64 }

// answer is the outcome of an operation.
type answer struct {
	rev    int64
	body   string
	err    error
	writes bool // it made a revision
}

func newReference(w *world) *reference {
	return &reference{w: w, log: map[uint64]entryPrint{}, prints: map[uint64]uint64{}, replies: map[uint64][]answer{},
		issued: map[string]uint64{}, void: map[string]bool{}, promises: map[int64]int64{}}
}

func (r *reference) found(ms []*pb.Member) {
	nonce := uint64(0)
	e, err := engine.Open(disk.NewMem(1), engine.Options{
		ClusterID: clusterID, MemberID: 1 << 40, Members: ms, QuotaBytes: -1, MinLeaseTTL: 1, Workers: 1, Publisher: r,
		Pages:   pagestore.Options{SegmentBytes: 128 << 10, PageBytes: 4 << 10, Inline: true, Nonce: func() uint64 { nonce++; return nonce }},
		Now:     func() int64 { return r.w.now * stepNanos },
		OnFatal: func(err error) { r.w.fail("the reference ends: %v", err) },
	})
	r.w.check(err, "reference")
	r.engine = e
}

// entry takes a committed entry from the first member that applies it, and
// compares it with what others apply. cc is a membership change.
func (r *reference) entry(m *member, index, term uint64, data, cc []byte) {
	w := r.w
	h := fnv.New64a()
	_, _ = h.Write(data)
	_, _ = h.Write(cc)
	print := entryPrint{term, h.Sum64()}
	if was, ok := r.log[index]; ok {
		if was != print {
			w.fail("member %d applies another entry %d than others", m.n.id, index)
		}
		return
	}
	if a := r.engine.AppliedIndex(); index != a+1 && a != 0 {
		w.fail("member %d is the first to apply entry %d, but nobody has applied entry %d", m.n.id, index, a+1)
	}
	r.log[index] = print
	w.note("entry %d of term %d: %d bytes", index, term, len(data)+len(cc))
	if cc != nil {
		r.engine.ApplyConfChange(index, term, cc, nil)
	} else {
		r.apply(index, term, data)
	}
	if w.rng.IntN(8) == 0 {
		w.check(r.engine.RunPending(), "reference")
	}
	if index%printEvery == 0 {
		sum, err := r.engine.Fingerprint()
		w.check(err, "reference")
		r.prints[index] = sum
	}
}

func (r *reference) apply(index, term uint64, data []byte) {
	var waiters []interface{ Dropped(error) }
	for rest := data; len(rest) > 0; {
		op, next, err := raft.NextOp(rest)
		r.w.check(err, "entry %d", index)
		r.operation(op, index, term)
		waiters = append(waiters, r)
		rest = next
	}
	before := r.engine.Revision()
	var answers []answer
	r.replying = &answers
	r.engine.Apply(index, term, data, waiters)
	for i := range answers {
		answers[i].writes = answers[i].rev > before
		before = max(before, answers[i].rev)
	}
	r.replies[index] = answers
}

// Applied implements engine.Waiter.
func (r *reference) Applied(rep *engine.Reply) {
	*r.replying = append(*r.replying, answer{rev: rep.Revision, body: string(rep.Body), err: rep.Err})
}

// Dropped implements engine.Waiter.
func (r *reference) Dropped(err error) { r.w.fail("the reference drops an operation: %v", err) }

// operation checks an operation that is about to be applied.
func (r *reference) operation(op []byte, index, term uint64) {
	w := r.w
	if r.void[string(op)] {
		w.fail("entry %d holds an operation of which its proposer was told that it never would be applied: %q", index, op)
	}
	if at, ok := r.issued[string(op)]; ok {
		if at != 0 {
			w.fail("entries %d and %d hold the same operation %q", at, index, op)
		}
		r.issued[string(op)] = index
	}
	switch engine.OpKind(op[0]) {
	case engine.OpLeaseExpire:
		r.expiry(op[1:], term)
	case engine.OpLeaseRevoke:
		var req pb.LeaseRevokeRequest
		w.check(req.UnmarshalVT(op[1:]), "entry %d", index)
		delete(r.promises, req.ID)
	}
}

// expiry checks that no lease is ended before its time.
func (r *reference) expiry(body []byte, term uint64) {
	decided, n := binary.Uvarint(body)
	if decided != term {
		return
	}
	for body = body[n:]; len(body) > 0; body = body[n:] {
		var id uint64
		id, n = binary.Uvarint(body)
		if until := r.promises[int64(id)]; r.w.now < until {
			r.w.fail("lease %d ends at step %d, its owner was promised %d", id, r.w.now, until)
		}
		r.w.stats.Expired++
		delete(r.promises, int64(id))
	}
}

// promise notes that the owner of a lease was told that it lives until then.
func (r *reference) promise(id, until int64) { r.promises[id] = max(r.promises[id], until) }

// Publish implements engine.Publisher.
func (r *reference) Publish(events []engine.Event, _ int64) {
	r.events = append(r.events, events...)
}

// Restored implements engine.Publisher.
func (r *reference) Restored(int64) {}

// WantsPrev implements engine.Publisher.
func (r *reference) WantsPrev() bool { return true }

// rangeAt returns what a range must give as of a revision; false if the revision
// is compacted.
func (r *reference) rangeAt(req *pb.RangeRequest, rev int64) ([]byte, bool) {
	q := req.CloneVT()
	q.Revision = rev
	body, _, err := r.engine.Range(q, nil)
	if err == engine.ErrCompacted {
		return nil, false
	}
	r.w.check(err, "reference: range at %d", rev)
	return body, true
}

// firstEvent returns the position of the first event from a revision on.
func (r *reference) firstEvent(rev int64) int {
	i, _ := slices.BinarySearchFunc(r.events, rev, func(ev engine.Event, rev int64) int {
		if ev.Main < rev {
			return -1
		}
		return 1
	})
	return i
}

// sameReply compares a member's answer with the reference's.
func (a *answer) same(rep *engine.Reply) bool {
	return a.rev == rep.Revision && a.err == rep.Err && bytes.Equal([]byte(a.body), rep.Body)
}
