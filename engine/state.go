package engine

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"quire/api/authpb"
	pb "quire/api/etcdserverpb"
	"quire/engine/auth"
	"quire/pagestore"
)

// A checkpoint holds two things besides the pages: meta, small and written with
// the manifest, and the state blob, everything replicated that is not a record.
// Both are sequences of fields, so that a later version can add some:
//
//	field   byte type, uvarint length, payload
//
// An unknown field is refused: it would be state silently dropped.

// stateVersion is the first payload byte of both; a reader of version n refuses others.
const stateVersion = 1

const (
	fieldVersion        = 1  // uvarint
	fieldApplied        = 2  // uvarint log index, uvarint term
	fieldRevision       = 3  // uvarint revision, uvarint compact revision
	fieldIdentity       = 4  // uvarint cluster ID, uvarint member ID
	fieldConfState      = 5  // opaque to the engine
	fieldRolling        = 6  // the rolling hash, 8 bytes little-endian
	fieldLeases         = 16 // repeated: uvarint id, uvarint ttl, uvarint remaining
	fieldAlarm          = 17 // uvarint member, uvarint type
	fieldMember         = 18 // pb.Member
	fieldRemovedMember  = 19 // uvarint id
	fieldClusterVersion = 20 // text
	fieldGraves         = 21 // repeated: uvarint location of a grave, uvarint location before it was moved or 0
	fieldAuth           = 22 // uvarint 1 if enabled, uvarint revision of the auth store
	fieldUser           = 23 // authpb.User
	fieldRole           = 24 // authpb.Role
	fieldDowngrade      = 26 // text: version to which a downgrade is under way
	fieldEnd            = 31
)

// meta is the small part of a checkpoint.
type meta struct {
	applied, term       uint64
	rev, compactRev     int64
	clusterID, memberID uint64
	confState           []byte
	rolling             uint64
	hasRolling          bool
}

func appendField(dst []byte, typ byte, payload []byte) []byte {
	return appendMessage(dst, typ, payload)
}

func uvarints(vs ...uint64) []byte {
	var b []byte
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

func (m *meta) encode() []byte {
	b := appendField(nil, fieldVersion, uvarints(stateVersion))
	b = appendField(b, fieldApplied, uvarints(m.applied, m.term))
	b = appendField(b, fieldRevision, uvarints(uint64(m.rev), uint64(m.compactRev)))
	b = appendField(b, fieldIdentity, uvarints(m.clusterID, m.memberID))
	b = appendField(b, fieldConfState, m.confState)
	if m.hasRolling {
		b = appendField(b, fieldRolling, binary.LittleEndian.AppendUint64(nil, m.rolling))
	}
	return b
}

func (m *meta) decode(b []byte) error {
	return eachField(b, func(typ byte, p []byte) error {
		u := fieldReader{p: p}
		switch typ {
		case fieldVersion:
			if v := u.next(); v != stateVersion {
				return fmt.Errorf("engine: checkpoint version %d, this program reads %d", v, stateVersion)
			}
		case fieldApplied:
			m.applied, m.term = u.next(), u.next()
		case fieldRevision:
			m.rev, m.compactRev = int64(u.next()), int64(u.next())
		case fieldIdentity:
			m.clusterID, m.memberID = u.next(), u.next()
		case fieldConfState:
			m.confState = append([]byte(nil), p...)
		case fieldRolling:
			if len(p) != 8 {
				return fmt.Errorf("engine: checkpoint field of %d bytes for a hash", len(p))
			}
			m.rolling, m.hasRolling = binary.LittleEndian.Uint64(p), true
		default:
			return fmt.Errorf("engine: checkpoint has unknown field %d", typ)
		}
		return u.err
	})
}

type fieldReader struct {
	p   []byte
	err error
}

func (r *fieldReader) next() uint64 {
	v, n := binary.Uvarint(r.p)
	if n <= 0 {
		r.err, r.p = errors.New("engine: checkpoint field is cut"), nil
		return 0
	}
	r.p = r.p[n:]
	return v
}

func eachField(b []byte, fn func(typ byte, payload []byte) error) error {
	for len(b) > 0 {
		n, w := binary.Uvarint(b[1:])
		if w <= 0 || n > uint64(len(b)-1-w) {
			return fmt.Errorf("engine: checkpoint field %d is cut", b[0])
		}
		if err := fn(b[0], b[1+w:1+w+int(n)]); err != nil {
			return err
		}
		b = b[1+w+int(n):]
	}
	return nil
}

// stateSnapshot is the state blob as of a cut: small things copied, leases read
// in chunks while it is written (see frozenLeases).
type stateSnapshot struct {
	leases         *frozenLeases
	alarms         []*pb.AlarmMember
	members        []*pb.Member
	removed        []uint64
	clusterVersion string
	downgrade      string
	graves         []gravePlace
	auth           auth.State
}

func (s *stateSnapshot) writeTo(w io.Writer) error {
	bw := bufio.NewWriterSize(w, 64<<10)
	out := appendField(nil, fieldVersion, uvarints(stateVersion))
	for _, a := range s.alarms {
		out = appendField(out, fieldAlarm, uvarints(a.MemberID, uint64(a.Alarm)))
	}
	for _, m := range s.members {
		p, err := m.MarshalVT()
		if err != nil {
			return fmt.Errorf("engine: member %x: %w", m.ID, err)
		}
		out = appendField(out, fieldMember, p)
	}
	for _, id := range s.removed {
		out = appendField(out, fieldRemovedMember, uvarints(id))
	}
	out = appendField(out, fieldClusterVersion, []byte(s.clusterVersion))
	if s.downgrade != "" {
		out = appendField(out, fieldDowngrade, []byte(s.downgrade))
	}
	var places []byte
	for _, p := range s.graves {
		places = binary.AppendUvarint(places, uint64(p.ref))
		places = binary.AppendUvarint(places, uint64(p.before))
	}
	if len(places) > 0 {
		out = appendField(out, fieldGraves, places)
	}
	out, err := s.appendAuth(out)
	if err != nil {
		return err
	}
	if _, err := bw.Write(out); err != nil {
		return err
	}
	var chunk []byte
	err = s.leases.each(func(ls []savedLease) error {
		chunk = chunk[:0]
		for _, l := range ls {
			chunk = binary.AppendUvarint(chunk, uint64(l.id))
			chunk = binary.AppendUvarint(chunk, uint64(l.ttl))
			chunk = binary.AppendUvarint(chunk, uint64(l.remaining))
		}
		_, err := bw.Write(appendField(nil, fieldLeases, chunk))
		return err
	})
	if err != nil {
		return err
	}
	if _, err := bw.Write(appendField(nil, fieldEnd, nil)); err != nil {
		return err
	}
	return bw.Flush()
}

// appendAuth appends the fields of the auth store, in the order of the names.
func (s *stateSnapshot) appendAuth(out []byte) ([]byte, error) {
	enabled := uint64(0)
	if s.auth.Enabled {
		enabled = 1
	}
	out = appendField(out, fieldAuth, uvarints(enabled, s.auth.Revision))
	s.auth.Sort()
	for _, u := range s.auth.Users {
		p, err := u.MarshalVT()
		if err != nil {
			return nil, fmt.Errorf("engine: user %q: %w", u.Name, err)
		}
		out = appendField(out, fieldUser, p)
	}
	for _, r := range s.auth.Roles {
		p, err := r.MarshalVT()
		if err != nil {
			return nil, fmt.Errorf("engine: role %q: %w", r.Name, err)
		}
		out = appendField(out, fieldRole, p)
	}
	return out, nil
}

// readState restores the blob into e.
func (e *Engine) readState(b []byte) error {
	ended := false
	var as auth.State
	err := eachField(b, func(typ byte, p []byte) error {
		u := fieldReader{p: p}
		switch typ {
		case fieldVersion:
			if v := u.next(); v != stateVersion {
				return fmt.Errorf("engine: state version %d, this program reads %d", v, stateVersion)
			}
		case fieldLeases:
			for len(u.p) > 0 && u.err == nil {
				id, ttl, left := u.next(), u.next(), u.next()
				e.lessor.restore(int64(id), int64(ttl), int64(left))
			}
		case fieldAlarm:
			e.alarms.set(u.next(), pb.AlarmType(u.next()))
		case fieldMember:
			m := new(pb.Member)
			if err := m.UnmarshalVT(p); err != nil {
				return fmt.Errorf("engine: member in checkpoint: %w", err)
			}
			e.cluster.restore(m)
		case fieldRemovedMember:
			e.cluster.restoreRemoved(u.next())
		case fieldClusterVersion:
			e.cluster.setVersion(string(p))
		case fieldDowngrade:
			e.cluster.setDowngrade(string(p))
		case fieldGraves:
			for len(u.p) > 0 && u.err == nil {
				ref := pagestore.Ref(u.next())
				e.ap.k.graves[ref] = grave{before: pagestore.Ref(u.next())}
			}
		case fieldAuth:
			as.Enabled, as.Revision = u.next() == 1, u.next()
		case fieldUser:
			m := new(authpb.User)
			if err := m.UnmarshalVT(p); err != nil {
				return fmt.Errorf("engine: user in checkpoint: %w", err)
			}
			as.Users = append(as.Users, m)
		case fieldRole:
			m := new(authpb.Role)
			if err := m.UnmarshalVT(p); err != nil {
				return fmt.Errorf("engine: role in checkpoint: %w", err)
			}
			as.Roles = append(as.Roles, m)
		case fieldEnd:
			ended = true
		default:
			return fmt.Errorf("engine: state has unknown field %d", typ)
		}
		return u.err
	})
	if err == nil && len(b) > 0 && !ended {
		err = errors.New("engine: state has no end field")
	}
	e.auth = auth.NewStore(&as)
	return err
}

// savedLease is a lease as a checkpoint records it.
type savedLease struct {
	id, ttl, remaining int64
}

// frozenLeases is the set of leases as of one log index, readable in chunks
// while grants and revokes go on: grants after the index are skipped, revokes
// after it leave their lease in removed, which may then be told a second time.
type frozenLeases struct {
	l       *lessor
	index   uint64
	clock   bool         // what this member's clock says counts, see saved
	removed []savedLease // guarded by lessor.mu
}

// saved is what a checkpoint records of a lease: the time left that the log
// knows, which is the same on every member. What the clock of a leader says on top
// may be outdated by a renewal, of which the log knows nothing: a lease that began
// with it would end too early. It counts only if no renewal can come any more and
// there is no other member: at the end of the only one.
func (f *frozenLeases) saved(le *lease) savedLease {
	left := le.remaining
	if f.clock {
		left = f.l.remainingLocked(le)
	}
	return savedLease{le.id, le.ttl, left}
}

// freezeChunk bounds how many leases are copied in one hold of the lock.
const freezeChunk = 1024

// freeze starts a walk; each ends it. One walk at a time.
func (l *lessor) freeze(index uint64) *frozenLeases {
	f := &frozenLeases{l: l, index: index}
	l.mu.Lock()
	l.mu.frozen = f
	l.mu.Unlock()
	return f
}

func (f *frozenLeases) each(fn func([]savedLease) error) error {
	l := f.l
	defer f.thaw()
	buf := make([]savedLease, 0, freezeChunk)
	for s, done := 0, false; !done; {
		buf = buf[:0]
		l.mu.RLock()
		for ; s < len(l.mu.slots) && len(buf) < freezeChunk; s++ {
			if le := &l.mu.slots[s]; le.id != 0 && le.granted <= f.index {
				buf = append(buf, f.saved(le))
			}
		}
		done = s >= len(l.mu.slots)
		if done {
			buf = append(buf, f.removed...)
		}
		l.mu.RUnlock()
		if len(buf) > 0 {
			if err := fn(buf); err != nil {
				return err
			}
		}
	}
	return nil
}

// thaw ends the walk early or at its end.
func (f *frozenLeases) thaw() {
	f.l.mu.Lock()
	if f.l.mu.frozen == f {
		f.l.mu.frozen = nil
	}
	f.l.mu.Unlock()
}
