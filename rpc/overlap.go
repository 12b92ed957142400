package rpc

import (
	"bytes"
	"slices"

	pb "quire/api/etcdserverpb"
)

// checkOverlaps refuses a transaction that could write a key twice in one
// revision: two puts of a key, or a put and a delete that covers it, on one
// path. Then and Else of a nested transaction exclude each other, so the same
// put in both is fine; two deletes may overlap.
func checkOverlaps(r *pb.TxnRequest) error {
	for _, ops := range [2][]*pb.RequestOp{r.Success, r.Failure} {
		if len(ops) < 2 && !nests(ops) {
			continue // a single operation cannot collide with itself
		}
		if _, _, err := overlaps(ops); err != nil {
			return err
		}
	}
	return nil
}

func nests(ops []*pb.RequestOp) bool {
	return len(ops) == 1 && ops[0].GetRequestTxn() != nil
}

type putSet map[string]struct{}

// overlaps checks one list of operations and returns what it puts and deletes,
// for the level above.
func overlaps(ops []*pb.RequestOp) (putSet, *delSet, error) {
	puts, dels := putSet{}, &delSet{}
	for _, op := range ops {
		if d := op.GetRequestDeleteRange(); d != nil {
			dels.add(d.Key, d.RangeEnd)
		}
	}
	for _, op := range ops {
		if t := op.GetRequestTxn(); t != nil {
			if err := nestedOverlaps(t, puts, dels); err != nil {
				return nil, nil, err
			}
		}
	}
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			if err := puts.add(string(p.Key), dels, nil); err != nil {
				return nil, nil, err
			}
		}
	}
	return puts, dels, nil
}

// nestedOverlaps adds what the nested transaction t writes to puts and dels.
func nestedOverlaps(t *pb.TxnRequest, puts putSet, dels *delSet) error {
	putsThen, delsThen, err := overlaps(t.Success)
	if err != nil {
		return err
	}
	putsElse, delsElse, err := overlaps(t.Failure)
	if err != nil {
		return err
	}
	for k := range putsThen {
		if err := puts.add(k, dels, nil); err != nil {
			return err
		}
	}
	for k := range putsElse {
		if err := puts.add(k, dels, putsThen); err != nil {
			return err
		}
	}
	dels.spans = append(append(dels.spans, delsThen.spans...), delsElse.spans...)
	dels.sorted = false
	return nil
}

// add records a put of k, unless it is there already (and not only through
// the exclusive other branch) or deleted.
func (p putSet) add(k string, dels *delSet, other putSet) error {
	if _, twice := p[k]; twice {
		if _, exclusive := other[k]; !exclusive {
			return errDuplicateKey
		}
	}
	if dels.covers([]byte(k)) {
		return errDuplicateKey
	}
	p[k] = struct{}{}
	return nil
}

// span is the half-open key interval [lo, hi). The range end "\x00", which
// everywhere else means no upper end, is an empty interval here, as in etcd:
// deleting from a key on and putting one behind it is permitted.
type span struct{ lo, hi []byte }

// delSet answers whether a key is deleted by any of its spans. It sorts
// lazily: spans are added in runs and then asked about many times.
type delSet struct {
	spans  []span
	sorted bool
	// reach[i] is the farthest end of spans[:i+1].
	reach [][]byte
}

func (d *delSet) add(key, end []byte) {
	s := span{lo: key, hi: end}
	if len(end) == 0 {
		s.hi = append(slices.Clone(key), 0)
	}
	d.spans = append(d.spans, s)
	d.sorted = false
}

func (d *delSet) covers(k []byte) bool {
	if len(d.spans) == 0 {
		return false
	}
	if !d.sorted {
		d.sort()
	}
	// The spans that start at or before k are a prefix; k is covered if the
	// farthest of their ends lies behind it.
	n, found := slices.BinarySearchFunc(d.spans, k, func(s span, k []byte) int { return bytes.Compare(s.lo, k) })
	for found && n < len(d.spans) && bytes.Equal(d.spans[n].lo, k) {
		n++
	}
	if n == 0 {
		return false
	}
	return bytes.Compare(k, d.reach[n-1]) < 0
}

func (d *delSet) sort() {
	slices.SortFunc(d.spans, func(a, b span) int { return bytes.Compare(a.lo, b.lo) })
	d.reach = d.reach[:0]
	var far []byte
	for _, s := range d.spans {
		if bytes.Compare(s.hi, far) > 0 {
			far = s.hi
		}
		d.reach = append(d.reach, far)
	}
	d.sorted = true
}
