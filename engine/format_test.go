package engine

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"quire/engine/auth"
	"quire/index"

	pb "quire/api/etcdserverpb"
)

// The bytes of format version 1. They may never change; another format is
// another version.
const (
	goldenRecord    = "020a016b10051807200a2a017630" + "2a"
	goldenTombstone = "030a016b1809"
	goldenHint      = "0207050a2a6b"
	goldenGrave     = "81808080100201030203000201"
	goldenMeta      = "01010102020307030209170402050805020801" + "06080102030405060708"
	// A downgrade to 3.6.0: the operation, and the field of the state blob.
	goldenDowngrade      = "20332e362e30"
	goldenDowngradeField = "1a05332e362e30"
	// What goes into the log on behalf of a user, and for a log-in.
	goldenAs           = "0c0703616e6e" + "010a01"
	goldenAuthenticate = "0f03616e6e7072"
	// The state blob's fields of the auth store, and all of the blob.
	goldenAuth  = "16020104" + "170f0a03616e6e1204686173681a027232" + "17090a03626f6222020801" + "180e0a027232120808021201611a0100"
	goldenState = "010101" + "1400" + goldenAuth + "1f00"
)

func TestGoldenFormats(t *testing.T) {
	kv := keyValue{key: []byte("k"), value: []byte("v"), create: 5, mod: 7, version: 10, lease: 42, sub: 1}
	ref := func(segment uint64) index.Loc { return index.Loc(segment << 30) }
	grave, _ := appendGrave(nil, []index.VersionRef{{Main: 5, Sub: 1, Loc: ref(3)}, {Main: 3, Loc: ref(1)}})
	m := meta{applied: 3, term: 7, rev: 9, compactRev: 23, clusterID: 5, memberID: 8, confState: []byte{8, 1}, rolling: 0x0807060504030201, hasRolling: true}
	for name, got := range map[string][2]string{
		"record":    {hex.EncodeToString(appendRecord(nil, &kv)), goldenRecord},
		"tombstone": {hex.EncodeToString(appendRecord(nil, &keyValue{key: []byte("k"), mod: 9, sub: 1, tombstone: true})), goldenTombstone},
		"hint":      {hex.EncodeToString(appendHint(nil, &kv)), goldenHint},
		"grave":     {hex.EncodeToString(grave), goldenGrave},
		"meta":      {hex.EncodeToString(m.encode()), goldenMeta},
		"downgrade": {hex.EncodeToString(AppendOp(nil, OpDowngrade, []byte("3.6.0"))), goldenDowngrade},
	} {
		if got[0] != got[1] {
			t.Errorf("%s:\n got %s\nwant %s", name, got[0], got[1])
		}
	}
	if !isGrave(grave) || isGrave(appendRecord(nil, &kv)) {
		t.Error("a grave and a record are taken for each other")
	}
}

func TestOtherVersionIsRefused(t *testing.T) {
	b := appendField(nil, fieldVersion, uvarints(stateVersion+1))
	if err := new(meta).decode(b); err == nil || !strings.Contains(err.Error(), "this program reads 1") {
		t.Errorf("meta: %v", err)
	}
	if err := newDecoder().readState(b); err == nil || !strings.Contains(err.Error(), "this program reads 1") {
		t.Errorf("state: %v", err)
	}
}

// newDecoder is an engine that can only read a state blob.
func newDecoder() *Engine {
	return &Engine{lessor: newLessor(2, func() int64 { return 0 }), alarms: newAlarmSet(), cluster: newCluster(),
		ap: applier{k: newKeyspace(nil)}}
}

func TestStateRoundTrip(t *testing.T) {
	e := newDecoder()
	mustGrant(t, e.lessor, 5, 60)
	e.alarms.set(9, pb.AlarmType_NOSPACE)
	e.cluster.restore(&pb.Member{ID: 9, Name: "a", PeerURLs: []string{"http://p"}})
	e.cluster.restoreRemoved(4)
	e.cluster.setVersion("3.7.0")
	e.cluster.setDowngrade("3.6.0")
	st := stateSnapshot{downgrade: e.cluster.downgradeTarget(), leases: e.lessor.freeze(1), alarms: e.alarms.list(0), members: e.cluster.list(),
		removed: e.cluster.removedIDs(), clusterVersion: e.cluster.clusterVersion(), graves: []gravePlace{{ref: 77}}}
	var blob bytes.Buffer
	if err := st.writeTo(&blob); err != nil {
		t.Fatal(err)
	}
	if field, _ := hex.DecodeString(goldenDowngradeField); !bytes.Contains(blob.Bytes(), field) {
		t.Errorf("no %s in the state %x", goldenDowngradeField, blob.Bytes())
	}
	d := newDecoder()
	if err := d.readState(blob.Bytes()); err != nil {
		t.Fatal(err)
	}
	if in := d.lessor.info(5, false); in.GrantedTTL != 60 || !d.alarms.has(pb.AlarmType_NOSPACE) || len(d.cluster.list()) != 1 ||
		len(d.cluster.removedIDs()) != 1 || d.cluster.clusterVersion() != "3.7.0" || d.cluster.downgradeTarget() != "3.6.0" || len(d.ap.k.graves) != 1 {
		t.Fatalf("read back %+v", d)
	}
	for n := range blob.Len() {
		if err := newDecoder().readState(blob.Bytes()[:n]); err == nil && n > 0 {
			t.Fatalf("a state cut at byte %d of %d is accepted", n, blob.Len())
		}
	}
}

// The decoders must refuse or read any bytes, and never panic.
func FuzzDecoders(f *testing.F) {
	for _, s := range []string{goldenRecord, goldenTombstone, goldenHint, goldenGrave, goldenMeta, goldenState, goldenAs, goldenAuthenticate} {
		b, err := hex.DecodeString(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var kv keyValue
		if decodeRecord(b, &kv) == nil && len(kv.key) > 0 && len(kv.key) < 100 {
			// What is understood can be written again.
			var again keyValue
			if err := decodeRecord(appendRecord(nil, &kv), &again); err != nil || !bytes.Equal(again.key, kv.key) {
				t.Fatalf("record written again: %v", err)
			}
		}
		_ = decodeHint(b, &kv)
		_, _, _ = decodeGrave(b)
		_ = new(meta).decode(b)
		_ = newDecoder().readState(b)
		_, _ = DecodeConfChange(b)
		if rev, user, rest, err := splitAs(b); err == nil {
			again := append(AppendAs(nil, auth.Identity{User: string(user), Revision: rev}), rest...)
			if r2, u2, o2, err := splitAs(again[1:]); err != nil || r2 != rev || !bytes.Equal(u2, user) || !bytes.Equal(o2, rest) {
				t.Fatalf("identity written again: %v", err)
			}
		}
		_, _, _ = cutName(b)
	})
}

func FuzzApply(f *testing.F) {
	put, _ := (&pb.PutRequest{Key: []byte("k"), Value: []byte("v")}).MarshalVT()
	f.Add(AppendOp(nil, OpPut, put))
	f.Add(AppendOp(nil, OpLeaseExpire, AppendExpire(nil, 1, []int64{1})))
	f.Add(append(AppendAs(nil, auth.Identity{User: "u", Revision: 1}), AppendOp(nil, OpPut, put)...))
	f.Add(AppendOp(nil, OpAuthenticate, AppendAuthenticate(nil, "u", "p")))
	user, _ := (&pb.AuthUserAddRequest{Name: "u"}).MarshalVT()
	f.Add(AppendOp(nil, OpUserAdd, user))
	f.Fuzz(func(t *testing.T, op []byte) {
		r := newRig(t, 1)
		r.quiet = true // an operation of unknown kind stops the engine, on purpose
		r.apply(op)
		_ = r.e.Abandon()
	})
}
