package engine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	pb "quire/api/etcdserverpb"
)

// clock is a lessor's clock that the test moves.
type clock struct {
	mu sync.Mutex
	ns int64
}

func (c *clock) now() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ns
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	c.ns += int64(d)
	c.mu.Unlock()
}

func mustGrant(t *testing.T, l *lessor, id, ttl int64) {
	t.Helper()
	if _, err := l.grant(id, ttl, 1); err != nil {
		t.Fatal(err)
	}
}

func TestLessorExpiry(t *testing.T) {
	c := new(clock)
	l := newLessor(2, c.now)
	mustGrant(t, l, 1, 10)
	if ids, next := l.expired(nil, 10); len(ids) != 0 || next != forever {
		t.Fatal("a member that does not lead keeps no clocks")
	}
	l.promote(0)
	mustGrant(t, l, 2, 5)
	if ttl, err := l.grant(3, 1, 1); err != nil || ttl != 2 {
		t.Fatalf("a grant below the minimum: %d %v", ttl, err)
	}
	c.advance(5 * time.Second)
	ids, next := l.expired(nil, 10)
	if fmt.Sprint(ids) != "[3 2]" || next != int64(8*time.Second) {
		t.Fatalf("expired %v, next %v", ids, time.Duration(next))
	}
	if ids, _ = l.expired(nil, 10); len(ids) != 0 {
		t.Fatalf("handed out twice: %v", ids)
	}
	if _, _, err := l.renew(2); !errors.Is(err, ErrLeaseNotFound) {
		t.Fatalf("an expired lease was renewed: %v", err)
	}
	if ttl, _, err := l.renew(1); err != nil || ttl != 10 {
		t.Fatalf("renew: %d %v", ttl, err)
	}
	c.advance(expireRetry)
	if ids, _ = l.expired(nil, 10); len(ids) != 2 {
		t.Fatalf("after the retry time: %v", ids)
	}
	l.remove(2)
	l.demote()
	c.advance(time.Hour)
	if ids, next = l.expired(nil, 10); len(ids) != 0 || next != forever {
		t.Fatalf("after demotion: %v", ids)
	}
	l.promote(0)
	if in := l.info(1, false); in.TTL != 10 {
		t.Fatalf("a new leader gives %d s, want the full TTL", in.TTL)
	}
}

func TestLessorRemaining(t *testing.T) {
	c := new(clock)
	l := newLessor(2, c.now)
	l.promote(0)
	mustGrant(t, l, 1, 100)
	mustGrant(t, l, 2, 100)
	c.advance(10 * time.Second)
	if _, _, err := l.renew(2); err != nil {
		t.Fatal(err)
	}
	c.advance(10 * time.Second)
	cps, next := l.due(0, 10, 5*time.Minute)
	if len(cps) != 1 || cps[0] != (savedLease{id: 1, remaining: 80}) || next != 0 {
		t.Fatalf("due %v, next %d: a lease that is being renewed is left alone", cps, next)
	}
	l.setRemaining(1, 80)
	if cps, _ = l.due(0, 10, 5*time.Minute); len(cps) != 0 {
		t.Fatalf("recorded already: %v", cps)
	}
	c.advance(40 * time.Second) // 50 s without a renewal
	if cps, _ = l.due(0, 10, 5*time.Minute); len(cps) != 2 {
		t.Fatalf("due %v", cps)
	}
	l.demote()
	l.promote(0)
	if a, b := l.info(1, false), l.info(2, false); a.TTL != 80 || b.TTL != 100 {
		t.Fatalf("after a change of leader %d and %d s are left", a.TTL, b.TTL)
	}
}

// TestLessorFreeze: a checkpoint sees the leases as of its index, whatever is
// granted and revoked while it walks.
func TestLessorFreeze(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	l := newLessor(2, func() int64 { return 0 })
	want := map[int64]bool{}
	for id := int64(1); id <= 5000; id++ {
		if _, err := l.grant(id, 10, uint64(id)); err != nil {
			t.Fatal(err)
		}
		want[id] = true
	}
	f := l.freeze(5000)
	next := int64(5001)
	err := f.each(func(ls []savedLease) error {
		for _, s := range ls {
			if s.id > 5000 {
				t.Fatalf("lease %d was granted after the freeze", s.id)
			}
			delete(want, s.id)
		}
		for range 100 {
			l.remove(1 + rnd.Int64N(next))
			if _, err := l.grant(next, 10, uint64(next)); err != nil {
				return err
			}
			next++
		}
		return nil
	})
	if err != nil || len(want) != 0 {
		t.Fatalf("%v; %d leases are missing", err, len(want))
	}
}

// TestLessorAttach compares attachments with a map over random operations.
func TestLessorAttach(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	l := newLessor(2, func() int64 { return 0 })
	model := map[string]int64{}
	for range 20_000 {
		id := 1 + rnd.Int64N(8)
		key := fmt.Sprint("k", rnd.IntN(40))
		switch rnd.IntN(5) {
		case 0:
			_, _ = l.grant(id, 10, 1)
		case 1:
			l.remove(id)
			for k, v := range model {
				if v == id {
					delete(model, k)
				}
			}
		case 2:
			l.detach([]byte(key))
			delete(model, key)
		default:
			if l.exists(id) {
				l.attach([]byte(key), id)
				model[key] = id
			}
		}
		n := 0
		for k, v := range model {
			if v == id {
				n++
				_ = k
			}
		}
		if keys, err := l.keysOf(id); err == nil && len(keys) != n {
			t.Fatalf("lease %d has %v, want %d keys", id, keys, n)
		}
	}
}

// TestManyLeases: a million leases cost little to keep, and their expiry comes
// in batches.
func TestManyLeases(t *testing.T) {
	n := int64(1_000_000)
	if testing.Short() {
		n = 10_000
	}
	c := new(clock)
	l := newLessor(2, c.now)
	l.promote(0)
	for id := int64(1); id <= n; id++ {
		if _, err := l.grant(id, 10+id%50, uint64(id)); err != nil {
			t.Fatal(err)
		}
	}
	c.advance(time.Minute)
	seen := int64(0)
	for {
		ids, _ := l.expired(nil, expireBatch)
		if len(ids) == 0 {
			break
		}
		for _, id := range ids {
			l.remove(id)
		}
		seen += int64(len(ids))
	}
	if seen != n {
		t.Fatalf("%d of %d leases expired", seen, n)
	}
}

// TestCheckpointedLeaseNeverEndsEarly: a renewal is not in the log, so a
// checkpoint before it must not say how much time was left then.
func TestCheckpointedLeaseNeverEndsEarly(t *testing.T) {
	c := new(clock)
	lead, to := twoRigs(t, 1)
	for _, r := range []*rig{lead, to} {
		r.clock = c.now
		r.crash()
	}
	lead.apply(op(t, OpLeaseGrant, &pb.LeaseGrantRequest{ID: 1, TTL: 60}))
	lead.e.LeaderChanged(9, 1, true)
	c.advance(20 * time.Second)
	index, term, conf := offered(t, lead, lead.index)
	renewed := c.now()
	if _, err := lead.e.LeaseRenew(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if err := stage(lead, to, index, term, nil); err != nil {
		t.Fatal(err)
	}
	if err := to.e.Restore(index, term, conf); err != nil {
		t.Fatal(err)
	}
	lead.crash()
	for _, r := range []*rig{lead, to} {
		r.e.LeaderChanged(r.id, 1, true)
		in, err := r.e.LeaseTimeToLive(1, false)
		if ends := c.now() + in.TTL*int64(time.Second); err != nil || ends < renewed+60*int64(time.Second) {
			t.Errorf("member %d: %+v, %v", r.id, in, err)
		}
	}
}

// TestRecordUnderWayIsCleared: a remaining time that is on its way into the log
// when the lease is renewed is cleared behind it, and one that another term's
// leader decided does not count at all.
func TestRecordUnderWayIsCleared(t *testing.T) {
	c := new(clock)
	lead, _ := twoRigs(t, 1)
	lead.clock = c.now
	lead.crash()
	var proposed [][]byte
	lead.e.opts.Propose = func(op []byte, _ Waiter) error { proposed = append(proposed, op); return nil }
	lead.apply(op(t, OpLeaseGrant, &pb.LeaseGrantRequest{ID: 1, TTL: 60}))
	lead.e.LeaderChanged(9, 1, true)
	c.advance(20 * time.Second)
	if err := lead.e.RunPending(); err != nil || len(proposed) != 1 || OpKind(proposed[0][0]) != OpLeaseRecord {
		t.Fatalf("proposed %x, %v", proposed, err)
	}
	ttl, clear, err := lead.e.LeaseRenewal(1)
	if err != nil || ttl != 60 || clear == nil {
		t.Fatalf("renewed for %d, to clear %x, %v", ttl, clear, err)
	}
	left := func() int64 { return lead.e.lessor.mu.slots[lead.e.lessor.mu.byID[1]].remaining }
	if lead.apply(proposed[0]); left() != 40 {
		t.Fatalf("recorded %d", left())
	}
	if lead.apply(clear); left() != 0 {
		t.Fatalf("cleared to %d", left())
	}
	if _, clear, err = lead.e.LeaseRenewal(1); err != nil || clear != nil {
		t.Fatalf("to clear %x, %v", clear, err)
	}
	record, n := binary.Uvarint(proposed[0][1:])
	other := AppendOp(nil, OpLeaseRecord, append(binary.AppendUvarint(nil, record+1), proposed[0][1+n:]...))
	if lead.apply(other); left() != 0 {
		t.Fatalf("another term's record counts: %d", left())
	}
}
