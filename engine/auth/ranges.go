package auth

import (
	"bytes"
	"slices"

	"quire/api/authpb"
)

// merged is what the roles of one user allow together.
type merged struct {
	epoch       uint64
	read, write ranges
}

// span is [lo, hi); a nil hi is no end.
type span struct{ lo, hi []byte }

// ranges are in order and neither overlap nor touch, so that a range of keys is
// allowed if one of them holds it.
type ranges []span

// openEnded tells whether a range_end means "to the last key".
func openEnded(rangeEnd []byte) bool { return len(rangeEnd) == 1 && rangeEnd[0] == 0 }

// spanOf is the set of keys that a key and a range_end name.
func spanOf(key, rangeEnd []byte) span {
	switch {
	case len(rangeEnd) == 0:
		return span{key, append(slices.Clip(key), 0)}
	case openEnded(rangeEnd):
		return span{key, nil}
	}
	return span{key, rangeEnd}
}

// merge collects the permissions of the roles. Roles and permissions that an
// older or a damaged state may hold and that cannot be granted count as none.
func merge(epoch uint64, names []string, roles map[string]*authpb.Role) *merged {
	m := &merged{epoch: epoch}
	for _, name := range names {
		for _, p := range roles[name].GetKeyPermission() {
			if !validRange(p.Key, p.RangeEnd) {
				continue
			}
			s := spanOf(p.Key, p.RangeEnd)
			if p.PermType == authpb.Permission_READ || p.PermType == authpb.Permission_READWRITE {
				m.read = append(m.read, s)
			}
			if p.PermType == authpb.Permission_WRITE || p.PermType == authpb.Permission_READWRITE {
				m.write = append(m.write, s)
			}
		}
	}
	m.read, m.write = m.read.unite(), m.write.unite()
	return m
}

// unite sorts r and joins what overlaps or touches.
func (r ranges) unite() ranges {
	slices.SortFunc(r, func(a, b span) int { return bytes.Compare(a.lo, b.lo) })
	out := r[:0]
	for _, s := range r {
		if n := len(out); n > 0 && out[n-1].reaches(s.lo) {
			if last := &out[n-1]; last.hi != nil && (s.hi == nil || bytes.Compare(s.hi, last.hi) > 0) {
				last.hi = s.hi
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// reaches tells whether s goes on to key or ends just before it.
func (s span) reaches(key []byte) bool { return s.hi == nil || bytes.Compare(key, s.hi) <= 0 }

// cover tells whether every key of a range is in r. A range that ends before
// its first key asks for that key, as in etcd.
func (r ranges) cover(key, rangeEnd []byte) bool {
	lo, hi := 0, len(r) // the first range that starts behind key
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if bytes.Compare(r[mid].lo, key) <= 0 {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return false
	}
	s := r[lo-1]
	switch {
	case s.hi == nil:
		return true
	case bytes.Compare(key, s.hi) >= 0 || openEnded(rangeEnd):
		return false
	}
	return bytes.Compare(rangeEnd, s.hi) <= 0
}
