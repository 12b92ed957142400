package etcdfile

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"quire/api/authpb"
	pb "quire/api/etcdserverpb"
)

func unzip(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func readBytes(t testing.TB, b []byte) *File {
	t.Helper()
	f, err := Read(bytes.NewReader(b), "test", int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// sample is a state with everything in it.
func sample() *State {
	return &State{
		ConsistentIndex: 77, Term: 3,
		ConfState:      ConfState{Voters: []uint64{1, 0xabc}, Learners: []uint64{7}},
		StorageVersion: "3.7.0", ScheduledCompact: 12, FinishedCompact: 11,
		Leases:      []Lease{{ID: 5, TTL: 60}, {ID: 1 << 40, TTL: 9_000_000_000, RemainingTTL: 4}},
		Alarms:      []*pb.AlarmMember{{MemberID: 1, Alarm: pb.AlarmType_NOSPACE}},
		AuthEnabled: true, AuthRevision: 9,
		Users: []*authpb.User{{Name: []byte("root"), Password: []byte("x"), Roles: []string{"root"}, Options: &authpb.UserAddOptions{}}},
		Roles: []*authpb.Role{{Name: []byte("reader"), KeyPermission: []*authpb.Permission{{PermType: authpb.Permission_READ, Key: []byte("a"), RangeEnd: []byte("b")}}}},
		Members: []*pb.Member{
			{ID: 1, Name: "m1", PeerURLs: []string{"http://a:1"}, ClientURLs: []string{"http://a:2"}},
			{ID: 0xabc, PeerURLs: []string{"http://b:1"}, IsLearner: true},
		},
		Removed: []uint64{4}, ClusterVersion: "3.7.0",
		Downgrade: Downgrade{TargetVersion: "3.6.0", Enabled: true},
	}
}

// kvBytes is the wire encoding of a KeyValue.
func kvBytes(key, value string, create, mod, version, lease int64) []byte {
	dst := append([]byte{1<<3 | 2, byte(len(key))}, key...)
	for i, v := range []int64{create, mod, version} {
		if v != 0 {
			dst = appendUvarint(append(dst, byte(i+2)<<3), uint64(v))
		}
	}
	if value != "" {
		dst = append(appendUvarint(append(dst, 5<<3|2), uint64(len(value))), value...)
	}
	if lease != 0 {
		dst = appendUvarint(append(dst, 6<<3), uint64(lease))
	}
	return dst
}

func appendUvarint(dst []byte, v uint64) []byte {
	for ; v >= 0x80; v >>= 7 {
		dst = append(dst, byte(v)|0x80)
	}
	return append(dst, byte(v))
}

// write makes a database and returns its path.
func write(t testing.TB, s *State, versions []Version) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	w, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range versions {
		if err := w.Put(&versions[i]); err != nil {
			t.Fatal(err)
		}
	}
	size, err := w.Finish(s)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != size || size%512 != 0 {
		t.Fatalf("size %d, file %v, %v", size, info.Size(), err)
	}
	return path
}

// history makes n versions of random keys, deletions among them.
func history(seed uint64, n int) []Version {
	rng := rand.New(rand.NewPCG(seed, 0))
	type live struct{ create, version int64 }
	keys := map[string]live{}
	var vs []Version
	for main := int64(2); len(vs) < n; main++ {
		for sub := int64(0); sub <= rng.Int64N(3); sub++ {
			key := fmt.Sprintf("key-%04d-%d", rng.IntN(n/2+1), sub)
			l, ok := keys[key]
			if ok && rng.IntN(4) == 0 {
				delete(keys, key)
				vs = append(vs, Version{Main: main, Sub: sub, Tombstone: true, KV: kvBytes(key, "", 0, 0, 0, 0)})
				continue
			}
			if !ok {
				l.create = main
			}
			l.version++
			keys[key] = l
			value := string(bytes.Repeat([]byte{'v'}, rng.IntN(300)))
			vs = append(vs, Version{Main: main, Sub: sub, KV: kvBytes(key, value, l.create, main, l.version, rng.Int64N(2))})
		}
	}
	return vs
}

func (s *State) messages() (ms []proto.Message) {
	for _, m := range s.Members {
		ms = append(ms, m)
	}
	for _, a := range s.Alarms {
		ms = append(ms, a)
	}
	for _, u := range s.Users {
		ms = append(ms, u)
	}
	for _, r := range s.Roles {
		ms = append(ms, r)
	}
	return ms
}

// plain is s without its messages, as text.
func (s *State) plain() string {
	c := *s
	c.Members, c.Alarms, c.Users, c.Roles = nil, nil, nil, nil
	return fmt.Sprintf("%+v", c)
}

func sameState(t *testing.T, got, want *State) {
	t.Helper()
	if got.plain() != want.plain() {
		t.Errorf("state\n%s, want\n%s", got.plain(), want.plain())
	}
	g, w := got.messages(), want.messages()
	if len(g) != len(w) {
		t.Fatalf("%d messages, want %d", len(g), len(w))
	}
	for i := range g {
		if !proto.Equal(g[i], w[i]) {
			t.Errorf("message %v, want %v", g[i], w[i])
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 10, 1000, 30_000} {
		want := history(uint64(n), n)
		path := write(t, sample(), want)
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		s, err := f.State()
		if err != nil {
			t.Fatal(err)
		}
		sameState(t, s, sample())
		i := 0
		err = f.Versions(func(v *Version, kv *KeyValue) error {
			if w := &want[i]; v.Main != w.Main || v.Sub != w.Sub || v.Tombstone != w.Tombstone || !bytes.Equal(v.KV, w.KV) {
				return fmt.Errorf("version %d is %+v, want %+v", i, v, w)
			}
			i++
			return nil
		})
		if err != nil || i != len(want) {
			t.Fatalf("%d of %d versions: %v", i, len(want), err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		checkWithBolt(t, path)
	}
}

// checkWithBolt has the library check the file.
func checkWithBolt(t *testing.T, path string) {
	t.Helper()
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.View(func(tx *bolt.Tx) error {
		var errs []error
		for err := range tx.Check() {
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
	if err != nil {
		t.Error(err)
	}
}

// TestManyLeases goes over more than one transaction.
func TestManyLeases(t *testing.T) {
	s := sample()
	s.Leases = nil
	for id := int64(1); id <= 20_000; id++ {
		s.Leases = append(s.Leases, Lease{ID: id, TTL: id})
	}
	f, err := Open(write(t, s, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	sameState(t, got, s)
}

// The golden files were written by etcd 3.7.1; the hash is what it answered.
func TestGoldenSnapshot(t *testing.T) {
	b := unzip(t, "saved.snap.gz")
	f := readBytes(t, b[:len(b)-SumBytes])
	h, err := f.HashKV()
	if want := (HashKV{Hash: 1380548823, Revision: 13, CompactRevision: 9}); err != nil || h != want {
		t.Errorf("hash %+v, %v, want %+v", h, err, want)
	}
	s, err := f.State()
	if err != nil {
		t.Fatal(err)
	}
	want := State{
		ConsistentIndex: 38, Term: 3, ConfState: ConfState{Voters: []uint64{0xac7c97ef0ec193b0}}, StorageVersion: "3.7.0",
		ScheduledCompact: 9, FinishedCompact: 9, Leases: []Lease{{ID: 0x13b0a212ef72230c, TTL: 600}, {ID: 0x13b0a212ef72230f, TTL: 5000}},
		AuthEnabled: true, AuthRevision: 7, Removed: []uint64{0xe6143045769d7f07}, ClusterVersion: "3.7.0",
	}
	if got := s.plain(); got != want.plain() {
		t.Errorf("state\n%s, want\n%s", got, want.plain())
	}
	if len(s.Users) != 2 || len(s.Roles) != 1 || len(s.Members) != 1 || s.Members[0].Name != "m1" {
		t.Errorf("users %v, roles %v, members %v", s.Users, s.Roles, s.Members)
	}
}

func TestOrderIsChecked(t *testing.T) {
	w, err := Create(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	kv := kvBytes("a", "", 5, 5, 1, 0)
	if err := w.Put(&Version{Main: 5, Sub: 1, KV: kv}); err != nil {
		t.Fatal(err)
	}
	for _, v := range []Version{{Main: 5, Sub: 1, KV: kv}, {Main: 5, KV: kv}, {Main: 4, Sub: 7, KV: kv}} {
		if w.Put(&v) == nil {
			t.Errorf("%d.%d is accepted behind 5.1", v.Main, v.Sub)
		}
	}
	if err := w.Abort(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(w.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file of an aborted writer: %v", err)
	}
}

func TestLocked(t *testing.T) {
	path := write(t, sample(), history(1, 10))
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Errorf("open of a database in use: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func TestVersionRefused(t *testing.T) {
	good := kvBytes("key", "value", 3, 5, 2, 9)
	if _, err := (&Version{Main: 5, KV: good}).Decode(); err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]Version{
		"another revision":    {Main: 6, KV: good},
		"created later":       {Main: 5, KV: kvBytes("key", "", 6, 5, 2, 0)},
		"never created":       {Main: 5, KV: kvBytes("key", "", 0, 5, 2, 0)},
		"version 0":           {Main: 5, KV: kvBytes("key", "", 5, 5, 0, 0)},
		"cut":                 {Main: 5, KV: good[:len(good)-1]},
		"no key":              {Main: 5, KV: []byte{2 << 3, 5, 3 << 3, 5, 4 << 3, 1}},
		"tombstone with more": {Main: 5, Tombstone: true, KV: good},
		"tombstone with none": {Main: 5, Tombstone: true},
		"zero field":          {Main: 5, KV: append(bytes.Clone(good[:len(good)-2]), 6<<3, 0)},
		"long integer":        {Main: 5, KV: append(bytes.Clone(good[:len(good)-1]), 0x89, 0)},
		"unknown field":       {Main: 5, KV: append(bytes.Clone(good), 7<<3, 1)},
		"field twice":         {Main: 5, KV: append(bytes.Clone(good), 6<<3, 9)},
	} {
		if kv, err := v.Decode(); err == nil {
			t.Errorf("%s: accepted as %+v", name, kv)
		}
	}
}
