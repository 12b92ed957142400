package engine

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"
)

// Fingerprint is a number of everything that is replicated: two members that have
// applied the same entries have the same. It reads all that HashKV reads. Apply
// must not be running.
func (e *Engine) Fingerprint() (uint64, error) {
	hash, compact, rev, err := e.HashKV(0)
	if err != nil {
		return 0, err
	}
	d := xxhash.New()
	put := func(vs ...uint64) {
		for _, v := range vs {
			_ = binary.Write(d, binary.LittleEndian, v)
		}
	}
	put(uint64(hash), uint64(compact), uint64(rev), e.ap.roll.sum)
	e.lessor.fingerprint(put, func(key string) { _, _ = d.WriteString(key) })
	for _, a := range e.Alarms() {
		put(a.MemberID, uint64(a.Alarm))
	}
	st := stateSnapshot{auth: e.auth.State()}
	b, err := st.appendAuth(nil)
	for _, m := range e.Members() {
		var p []byte
		if err == nil {
			p, err = m.MarshalVT()
		}
		b = appendMessage(b, fieldMember, p)
	}
	_, _ = d.Write(b)
	put(e.cluster.removedIDs()...)
	_, _ = d.WriteString(e.ClusterVersion() + "/" + e.Downgrade())
	return d.Sum64(), err
}

// fingerprint tells of every lease what is replicated, in order.
func (l *lessor) fingerprint(put func(...uint64), name func(string)) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	held := make([]*lease, 0, len(l.mu.byID))
	for _, s := range l.mu.byID {
		held = append(held, &l.mu.slots[s])
	}
	slices.SortFunc(held, func(a, b *lease) int { return cmp.Compare(a.id, b.id) })
	for _, le := range held {
		put(uint64(le.id), uint64(le.ttl), uint64(le.remaining), uint64(len(le.keys)))
		keys := slices.Clone(le.keys)
		slices.Sort(keys)
		for _, k := range keys {
			name(k)
		}
	}
}
