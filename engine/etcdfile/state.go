package etcdfile

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"quire/api/authpb"
	pb "quire/api/etcdserverpb"
)

// State is everything in a database but the versions of keys.
type State struct {
	ConsistentIndex, Term uint64 // 0 in a file of 3.4 or older without a term
	ConfState             ConfState
	StorageVersion        string // "" before 3.6
	// ScheduledCompact is the compact revision, FinishedCompact the one up to
	// which everything superfluous has been removed; -1 for none.
	ScheduledCompact, FinishedCompact int64

	Leases []Lease
	Alarms []*pb.AlarmMember

	AuthEnabled  bool
	AuthRevision uint64
	Users        []*authpb.User
	Roles        []*authpb.Role

	Members        []*pb.Member
	Removed        []uint64 // IDs of former members
	ClusterVersion string   // "" if unknown
	Downgrade      Downgrade
}

// CompactRevision is what a server that starts on the file compacts to; -1 for
// none.
func (s *State) CompactRevision() int64 { return max(s.ScheduledCompact, s.FinishedCompact) }

// Lease is a granted lease; TTLs are in seconds. RemainingTTL 0 means the whole.
type Lease struct {
	ID, TTL, RemainingTTL int64
}

// ConfState is raft's membership, with raftpb.ConfState's JSON.
type ConfState struct {
	Voters         []uint64 `json:"voters,omitempty"`
	Learners       []uint64 `json:"learners,omitempty"`
	VotersOutgoing []uint64 `json:"voters_outgoing,omitempty"`
	LearnersNext   []uint64 `json:"learners_next,omitempty"`
	AutoLeave      bool     `json:"auto_leave"`
}

// Downgrade is a downgrade under way, if Enabled.
type Downgrade struct {
	TargetVersion string `json:"target-version"`
	Enabled       bool   `json:"enabled"`
}

// memberJSON is etcd's encoding of a member.
type memberJSON struct {
	ID         uint64   `json:"id"`
	PeerURLs   []string `json:"peerURLs"`
	IsLearner  bool     `json:"isLearner,omitempty"`
	Name       string   `json:"name,omitempty"`
	ClientURLs []string `json:"clientURLs,omitempty"`
}

// Names of the buckets. Their order is the one in which they are written.
const (
	bucketAlarm          = "alarm"
	bucketAuth           = "auth"
	bucketRoles          = "authRoles"
	bucketUsers          = "authUsers"
	bucketCluster        = "cluster"
	bucketKey            = "key"
	bucketLease          = "lease"
	bucketMembers        = "members"
	bucketMembersRemoved = "members_removed"
	bucketMeta           = "meta"
)

// Keys in the buckets meta, auth and cluster.
const (
	keyConsistentIndex  = "consistent_index"
	keyTerm             = "term"
	keyConfState        = "confState"
	keyStorageVersion   = "storageVersion"
	keyScheduledCompact = "scheduledCompactRev"
	keyFinishedCompact  = "finishedCompactRev"
	keyAuthEnabled      = "authEnabled"
	keyAuthRevision     = "authRevision"
	keyClusterVersion   = "clusterVersion"
	keyDowngrade        = "downgrade"
)

const removedMark = "removed"

// pair is one element of a bucket.
type pair struct{ key, value []byte }

func u64Bytes(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func revisionKey(main int64) []byte { return (&Version{Main: main}).AppendKey(nil) }

// buckets encodes s, but for the leases, which may be many.
func (s *State) buckets() (map[string][]pair, error) {
	b := map[string][]pair{}
	add := func(bucket, key string, value []byte) {
		b[bucket] = append(b[bucket], pair{[]byte(key), value})
	}
	if s.ConsistentIndex > 0 {
		add(bucketMeta, keyConsistentIndex, u64Bytes(s.ConsistentIndex))
		add(bucketMeta, keyTerm, u64Bytes(s.Term))
	}
	conf, err := json.Marshal(s.ConfState)
	if err != nil {
		return nil, err
	}
	add(bucketMeta, keyConfState, conf)
	if s.FinishedCompact >= 0 {
		add(bucketMeta, keyFinishedCompact, revisionKey(s.FinishedCompact))
	}
	if s.ScheduledCompact >= 0 {
		add(bucketMeta, keyScheduledCompact, revisionKey(s.ScheduledCompact))
	}
	if s.StorageVersion != "" {
		add(bucketMeta, keyStorageVersion, []byte(s.StorageVersion))
	}
	if s.AuthEnabled {
		add(bucketAuth, keyAuthEnabled, []byte{1})
	}
	add(bucketAuth, keyAuthRevision, u64Bytes(s.AuthRevision))
	if s.ClusterVersion != "" {
		add(bucketCluster, keyClusterVersion, []byte(s.ClusterVersion))
	}
	down, err := json.Marshal(s.Downgrade)
	if err != nil {
		return nil, err
	}
	add(bucketCluster, keyDowngrade, down)
	return b, s.addMessages(add)
}

// addMessages encodes what is one element each.
func (s *State) addMessages(add func(bucket, key string, value []byte)) error {
	for _, a := range s.Alarms {
		key, err := a.MarshalVT()
		if err != nil {
			return err
		}
		add(bucketAlarm, string(key), nil)
	}
	for _, u := range s.Users {
		v, err := u.MarshalVT()
		if err != nil {
			return err
		}
		add(bucketUsers, string(u.Name), v)
	}
	for _, r := range s.Roles {
		v, err := r.MarshalVT()
		if err != nil {
			return err
		}
		add(bucketRoles, string(r.Name), v)
	}
	for _, m := range s.Members {
		v, err := json.Marshal(memberJSON{m.ID, m.PeerURLs, m.IsLearner, m.Name, m.ClientURLs})
		if err != nil {
			return err
		}
		add(bucketMembers, memberKey(m.ID), v)
	}
	for _, id := range s.Removed {
		add(bucketMembersRemoved, memberKey(id), []byte(removedMark))
	}
	return nil
}

func memberKey(id uint64) string { return strconv.FormatUint(id, 16) }

// encode returns the element of a lease.
func (l *Lease) encode() pair {
	var v []byte
	for i, f := range []int64{l.ID, l.TTL, l.RemainingTTL} {
		if f != 0 {
			v = protowire.AppendTag(v, protowire.Number(i+1), protowire.VarintType)
			v = protowire.AppendVarint(v, uint64(f))
		}
	}
	return pair{u64Bytes(uint64(l.ID)), v}
}

func decodeLease(key, value []byte) (l Lease, err error) {
	fields := [...]*int64{1: &l.ID, 2: &l.TTL, 3: &l.RemainingTTL}
	for b := value; len(b) > 0; {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ != protowire.VarintType || num < 1 || int(num) >= len(fields) {
			return l, fmt.Errorf("lease %x has field %d of type %d", key, num, typ)
		}
		v, m := protowire.ConsumeVarint(b[n:])
		if m < 0 {
			return l, fmt.Errorf("lease %x is cut", key)
		}
		*fields[num] = int64(v)
		b = b[n+m:]
	}
	if len(key) != 8 || int64(binary.BigEndian.Uint64(key)) != l.ID || l.ID == 0 || l.TTL < 0 || l.RemainingTTL < 0 {
		return l, fmt.Errorf("lease %x has ID %x, TTL %d and remaining TTL %d", key, uint64(l.ID), l.TTL, l.RemainingTTL)
	}
	return l, nil
}

var errUnknown = errors.New("unknown name")

// take decodes one element of a bucket other than "key".
func (s *State) take(bucket string, key, value []byte) error {
	switch bucket {
	case bucketMeta:
		return s.takeMeta(string(key), value)
	case bucketLease:
		l, err := decodeLease(key, value)
		s.Leases = append(s.Leases, l)
		return err
	case bucketAlarm:
		a := new(pb.AlarmMember)
		s.Alarms = append(s.Alarms, a)
		return a.UnmarshalVT(key)
	case bucketAuth:
		return s.takeAuth(string(key), value)
	case bucketUsers:
		u := new(authpb.User)
		s.Users = append(s.Users, u)
		return named(u.UnmarshalVT(value), key, u.Name)
	case bucketRoles:
		r := new(authpb.Role)
		s.Roles = append(s.Roles, r)
		return named(r.UnmarshalVT(value), key, r.Name)
	case bucketCluster:
		return s.takeCluster(string(key), value)
	case bucketMembers:
		return s.takeMember(string(key), value)
	case bucketMembersRemoved:
		id, err := strconv.ParseUint(string(key), 16, 64)
		s.Removed = append(s.Removed, id)
		return err
	}
	return errUnknown
}

func named(err error, key, name []byte) error {
	if err == nil && string(key) != string(name) {
		err = fmt.Errorf("it is the entry of %q", name)
	}
	return err
}

func (s *State) takeMeta(key string, value []byte) (err error) {
	switch key {
	case keyConsistentIndex:
		s.ConsistentIndex, err = u64Value(value)
	case keyTerm:
		s.Term, err = u64Value(value)
	case keyConfState:
		err = json.Unmarshal(value, &s.ConfState)
	case keyStorageVersion:
		s.StorageVersion = string(value)
	case keyScheduledCompact:
		s.ScheduledCompact, err = revisionValue(value)
	case keyFinishedCompact:
		s.FinishedCompact, err = revisionValue(value)
	default:
		err = errUnknown
	}
	return err
}

func u64Value(v []byte) (uint64, error) {
	if len(v) != 8 {
		return 0, fmt.Errorf("a number of %d bytes", len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

func revisionValue(v []byte) (int64, error) {
	r, err := parseRevision(v)
	return r.Main, err
}

func (s *State) takeAuth(key string, value []byte) (err error) {
	switch key {
	case keyAuthEnabled:
		if s.AuthEnabled = string(value) == "\x01"; !s.AuthEnabled && string(value) != "\x00" {
			err = fmt.Errorf("value %q", value)
		}
	case keyAuthRevision:
		s.AuthRevision, err = u64Value(value)
	default:
		err = errUnknown
	}
	return err
}

func (s *State) takeCluster(key string, value []byte) (err error) {
	switch key {
	case keyClusterVersion:
		s.ClusterVersion = string(value)
	case keyDowngrade:
		err = json.Unmarshal(value, &s.Downgrade)
	default:
		err = errUnknown
	}
	return err
}

func (s *State) takeMember(key string, value []byte) error {
	var m memberJSON
	if err := json.Unmarshal(value, &m); err != nil {
		return err
	}
	if memberKey(m.ID) != key {
		return fmt.Errorf("it is the entry of member %x", m.ID)
	}
	s.Members = append(s.Members, &pb.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner})
	return nil
}
