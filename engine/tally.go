package engine

import (
	"errors"
	"math/bits"
	"sync/atomic"
	"time"
)

// Tally counts what this engine has done since it was opened, replay included.
// etcd's metrics are made of it.
type Tally struct {
	Puts, PutBytes uint64 // keys and values
	Deletes        uint64 // delete operations, whatever they found, and the keys of revoked leases
	TxnRanges      uint64 // ranges and compares inside transactions
	Txns           uint64 // transactions that did more than one thing

	LeasesGranted, LeasesRevoked, LeasesExpired, LeasesRenewed uint64
	// LeaseTTLs[i] is how many grants had a TTL of at most 2^i seconds and more
	// than half of that; the last one has all that are longer.
	LeaseTTLs     [25]uint64
	LeaseTTLTotal uint64 // seconds

	CompactedKeys  uint64
	LastCompaction time.Time // zero: none yet
}

// tally is the live form.
type tally struct {
	puts, putBytes, deletes, txnRanges, txns atomic.Uint64
	granted, revoked, expired, renewed       atomic.Uint64
	ttls                                     [25]atomic.Uint64
	ttlTotal                                 atomic.Uint64
	compactedKeys                            atomic.Uint64
	lastCompaction                           atomic.Int64 // Unix nanoseconds
}

// Tally returns the counts. They are read one by one.
func (e *Engine) Tally() Tally {
	c := &e.tally
	t := Tally{
		Puts: c.puts.Load(), PutBytes: c.putBytes.Load(), Deletes: c.deletes.Load(),
		TxnRanges: c.txnRanges.Load(), Txns: c.txns.Load(),
		LeasesGranted: c.granted.Load(), LeasesRevoked: c.revoked.Load(), LeasesExpired: c.expired.Load(), LeasesRenewed: c.renewed.Load(),
		LeaseTTLTotal: c.ttlTotal.Load(), CompactedKeys: c.compactedKeys.Load(),
	}
	for i := range c.ttls {
		t.LeaseTTLs[i] = c.ttls[i].Load()
	}
	if at := c.lastCompaction.Load(); at != 0 {
		t.LastCompaction = time.Unix(0, at)
	}
	return t
}

// leaseGranted counts a grant.
func (c *tally) leaseGranted(ttl int64) {
	c.granted.Add(1)
	c.ttlTotal.Add(uint64(ttl))
	c.ttls[min(bits.Len64(uint64(max(ttl-1, 0))), len(c.ttls)-1)].Add(1)
}

// compacted counts the end of a compaction.
func (c *tally) compacted(keys int) {
	c.compactedKeys.Add(uint64(keys))
	c.lastCompaction.Store(time.Now().UnixNano())
}

// entryTally is what one entry did. It belongs to the apply goroutine, so that an
// operation costs no atomic instruction.
type entryTally struct {
	puts, putBytes, deletes uint64
	txnRanges, txns         uint64
	kinds                   [opKinds][2]uint32 // refused, done
	touched                 uint64             // bit k: kinds[k] is not zero
}

// opKinds is one more than the largest OpKind.
const opKinds = int(OpRoleRevoke) + 1

// ended notes how an operation ended. Something that was compacted already is as
// good as done, as in etcd.
func (t *entryTally) ended(kind OpKind, err error) {
	if int(kind) >= opKinds {
		return
	}
	ok := 0
	if err == nil || errors.Is(err, ErrCompacted) {
		ok = 1
	}
	t.kinds[kind][ok]++
	t.touched |= 1 << kind
}

// settle adds the entry to the tally.
func (t *entryTally) settle(c *tally) {
	if t.puts > 0 {
		c.puts.Add(t.puts)
		c.putBytes.Add(t.putBytes)
	}
	if t.deletes > 0 {
		c.deletes.Add(t.deletes)
	}
	c.transacted(t.txnRanges, t.txns)
	t.puts, t.putBytes, t.deletes, t.txnRanges, t.txns = 0, 0, 0, 0, 0
}

// forget makes room for the next entry.
func (t *entryTally) forget() {
	for k := t.touched; k != 0; k &= k - 1 {
		t.kinds[bits.TrailingZeros64(k)] = [2]uint32{}
	}
	t.touched = 0
}

// EachApplied calls fn for each kind of operation in the entry that was applied
// last. Only who calls Apply may call it.
func (e *Engine) EachApplied(fn func(kind OpKind, ok bool, n uint32)) {
	t := &e.ap.entry
	for k := t.touched; k != 0; k &= k - 1 {
		kind := bits.TrailingZeros64(k)
		for ok, n := range t.kinds[kind] {
			if n > 0 {
				fn(OpKind(kind), ok == 1, n)
			}
		}
	}
}

// count returns what a planned transaction has done, the nested ones included.
func (p *txnPlan) count() (compares, ranges, writes uint64) {
	compares = p.compares
	for _, op := range p.ops {
		switch {
		case op.GetRequestRange() != nil:
			ranges++
		case op.GetRequestTxn() == nil:
			writes++
		}
	}
	for _, n := range p.nested {
		c, r, w := n.count()
		compares, ranges, writes = compares+c, ranges+r, writes+w
	}
	return compares, ranges, writes
}

// tally tells what a transaction that was carried out adds to the counts of
// ranges and of transactions, as etcd counts: a compare is a range, and in a
// transaction that may write the compares are one of their own.
func (p *txnPlan) tally(mayWrite bool) (txnRanges, txns uint64) {
	compares, ranges, writes := p.count()
	if mayWrite {
		return compares + ranges, several(compares) + several(ranges+writes)
	}
	return compares + ranges, several(compares + ranges)
}

// transacted adds what transactions have done.
func (c *tally) transacted(ranges, txns uint64) {
	if ranges > 0 {
		c.txnRanges.Add(ranges)
	}
	if txns > 0 {
		c.txns.Add(txns)
	}
}

// several is 1 for more than one.
func several(n uint64) uint64 {
	if n > 1 {
		return 1
	}
	return 0
}
