package realclient

import (
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	mustPut(t, s.kv, put("k", "v"))
	st, err := s.maintenance.Status(s.ctx, &pb.StatusRequest{})
	check(t, err)
	h := st.GetHeader()
	if !strings.HasPrefix(st.Version, "3.7.") {
		t.Errorf("version %q: Kubernetes switches features on by it", st.Version)
	}
	equal(t, "leader", st.Leader, h.GetMemberId())
	equal(t, "revision", h.GetRevision(), int64(2))
	equal(t, "raft term", st.RaftTerm, h.GetRaftTerm())
	equal(t, "raft index is at least the term's first entry and the put", st.RaftIndex >= 2, true)
	eventually(t, "everything is applied", func() bool { // entries of the server's own may be under way
		now, err := s.maintenance.Status(s.ctx, &pb.StatusRequest{})
		check(t, err)
		return now.RaftAppliedIndex == now.RaftIndex && now.RaftAppliedIndex >= st.RaftIndex
	})
	equal(t, "learner", st.IsLearner, false)
	equal(t, "storage version", st.StorageVersion, "3.7.0")
	equal(t, "errors", len(st.Errors), 0)
	equal(t, "quota", st.DbSizeQuota, int64(2<<30))
	equal(t, "downgrade", st.GetDowngradeInfo().GetEnabled(), false)
	equal(t, "size of an almost empty store", st.DbSize > 0 && st.DbSize < 52<<10, true)
	equal(t, "size in use", st.DbSizeInUse > 0 && st.DbSizeInUse <= st.DbSize, true)
}

func TestStatusFollowsWhatIsWritten(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--quota-backend-bytes", "1073741824")
	status := func() *pb.StatusResponse {
		st, err := s.maintenance.Status(s.ctx, &pb.StatusRequest{})
		check(t, err)
		return st
	}
	before := status()
	equal(t, "quota", before.DbSizeQuota, int64(1<<30))
	value := make([]byte, 512<<10)
	var last int64
	for i := range 40 {
		last = mustPut(t, s.kv, &pb.PutRequest{Key: []byte("k"), Value: value})
		if i == 0 {
			equal(t, "index moves with each write", status().RaftIndex > before.RaftIndex, true)
		}
	}
	eventually(t, "20 MiB are counted", func() bool {
		full := status()
		return full.DbSize > 20<<20 && full.DbSizeInUse > 20<<20
	})
	mustCompact(t, s.kv, last)
	eventually(t, "compaction frees space for use", func() bool { return status().DbSizeInUse < 5<<20 })
	_, err := s.maintenance.Defragment(s.ctx, &pb.DefragmentRequest{})
	check(t, err)
	eventually(t, "defragmentation gives it back", func() bool { return status().DbSize < 5<<20 })
	equal(t, "data is still there", mustGet(t, s.kv, get("k", "")).Kvs[0].ModRevision, last)
}

func TestMemberList(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--name", "me", "--initial-cluster", "me=http://127.0.0.1:9", "--initial-advertise-peer-urls", "http://127.0.0.1:9",
		"--advertise-client-urls", "http://127.0.0.1:10,http://127.0.0.1:11")
	for _, linearizable := range []bool{false, true} {
		resp, err := s.cluster.MemberList(s.ctx, &pb.MemberListRequest{Linearizable: linearizable})
		check(t, err)
		equal(t, "members", len(resp.Members), 1)
		m := resp.Members[0]
		equal(t, "member", fmt.Sprint(m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner),
			"me[http://127.0.0.1:9] [http://127.0.0.1:10 http://127.0.0.1:11] false")
		equal(t, "id", m.ID, resp.GetHeader().GetMemberId())
		equal(t, "header has no revision", resp.GetHeader().GetRevision(), int64(0))
	}
}

// TestIdsFollowFromTheBootstrapFlags: the same flags give the same member and cluster id as upstream.
func TestIdsFollowFromTheBootstrapFlags(t *testing.T) {
	t.Parallel()
	flags := []string{"--name", "a", "--initial-cluster", "a=http://127.0.0.1:9", "--initial-advertise-peer-urls", "http://127.0.0.1:9"}
	tests := []struct {
		name            string
		more            []string
		cluster, member uint64
	}{
		{"default token", nil, 0xdd00e018a32a53ff, 0xcfb0cfd8b5c842d9},
		{"own token", []string{"--initial-cluster-token", "other"}, 0xbc9d44906bdae96d, 0xdce5d7c3807de04c},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := mustGet(t, startServer(t, append(flags, tt.more...)...).kv, get("k", "")).GetHeader()
			equal(t, "cluster", fmt.Sprintf("%x", h.ClusterId), fmt.Sprintf("%x", tt.cluster))
			equal(t, "member", fmt.Sprintf("%x", h.MemberId), fmt.Sprintf("%x", tt.member))
		})
	}
}

func TestMembershipRequestsOfASingleMember(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	_, err := s.cluster.MemberRemove(s.ctx, &pb.MemberRemoveRequest{ID: 1})
	wantErr(t, "remove an unknown member", err, codes.NotFound, "etcdserver: member not found")
	_, err = s.cluster.MemberUpdate(s.ctx, &pb.MemberUpdateRequest{ID: 1, PeerURLs: []string{"http://127.0.0.1:9"}})
	wantErr(t, "update an unknown member", err, codes.NotFound, "etcdserver: member not found")
	_, err = s.cluster.MemberPromote(s.ctx, &pb.MemberPromoteRequest{ID: 1})
	wantErr(t, "promote an unknown member", err, codes.NotFound, "etcdserver: member not found")
	_, err = s.cluster.MemberAdd(s.ctx, &pb.MemberAddRequest{PeerURLs: []string{"rubbish"}})
	wantErr(t, "add with a bad URL", err, codes.InvalidArgument, "etcdserver: given member URLs are invalid")
	_, err = s.maintenance.MoveLeader(s.ctx, &pb.MoveLeaderRequest{TargetID: 1})
	wantErr(t, "move to an unknown leader", err, codes.FailedPrecondition, "etcdserver: bad leader transferee")
}

const noSpace = "ResourceExhausted: etcdserver: mvcc: database space exceeded"

// fill puts 4 KiB values until the quota refuses, and returns how many were taken. The size that counts may lag behind
// what was written (upstream's by the tenth of a second between two commits of its backend).
func fill(t *testing.T, s *server) int {
	t.Helper()
	for i := range 2000 {
		time.Sleep(2 * time.Millisecond)
		_, err := s.kv.Put(s.ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%d", i), Value: make([]byte, 4<<10)})
		if err != nil {
			equal(t, "refusal", errText(err), noSpace)
			return i
		}
	}
	t.Fatal("the quota never refused")
	return 0
}

func TestQuotaRaisesAnAlarmThatRefusesWrites(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--quota-backend-bytes", "53248")
	taken := fill(t, s)
	if taken < 2 {
		t.Errorf("only %d puts of 4 KiB were taken", taken)
	}
	alarms, err := s.maintenance.Alarm(s.ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	check(t, err)
	equal(t, "alarms", len(alarms.Alarms), 1)
	equal(t, "alarm", alarms.Alarms[0].Alarm, pb.AlarmType_NOSPACE)
	equal(t, "member", alarms.Alarms[0].MemberID, alarms.GetHeader().GetMemberId())
	st, err := s.maintenance.Status(s.ctx, &pb.StatusRequest{})
	check(t, err)
	equal(t, "errors of the status", len(st.Errors), 1)
	equal(t, "status", strings.Join(strings.Fields(st.Errors[0]), " "), fmt.Sprintf("memberID:%d alarm:NOSPACE", alarms.Alarms[0].MemberID))

	tiny := put("t", "1")
	requests := []struct {
		name string
		do   func() error
		want string
	}{
		{"put", func() error { _, err := s.kv.Put(s.ctx, tiny); return err }, noSpace},
		{"txn with a put", func() error { _, err := s.kv.Txn(s.ctx, then(opPut(tiny))); return err }, noSpace},
		{"txn with a put in the branch not taken", func() error {
			_, err := s.kv.Txn(s.ctx, &pb.TxnRequest{Failure: []*pb.RequestOp{opPut(tiny)}})
			return err
		}, noSpace},
		{"grant", func() error { _, err := s.lease.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: 1, TTL: 100}); return err }, noSpace},
		{"range", func() error { _, err := s.kv.Range(s.ctx, get("k0", "")); return err }, ""},
		{"read-only txn", func() error { _, err := s.kv.Txn(s.ctx, then(opGet(get("k0", "")))); return err }, ""},
		{"txn with a delete", func() error { _, err := s.kv.Txn(s.ctx, then(opDel(del("k0", "")))); return err }, ""},
		{"delete", func() error { _, err := s.kv.DeleteRange(s.ctx, del("k1", "k9")); return err }, ""},
		{"compact", func() error {
			_, err := s.kv.Compact(s.ctx, &pb.CompactionRequest{Revision: int64(taken + 1), Physical: true})
			return err
		}, ""},
	}
	for _, r := range requests {
		equal(t, r.name, errText(r.do()), r.want)
	}
	code, body := httpGet(t, s.Server, "/health")
	equal(t, "health", fmt.Sprint(code, body), "503{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n")
	code, _ = httpGet(t, s.Server, "/health?exclude=NOSPACE")
	equal(t, "health without it", code, 200)
}

func TestNospaceAlarmStaysOverARestartAndIsDisarmedByHand(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--quota-backend-bytes", "53248")
	fill(t, s)
	s.Kill()
	s.Restart(t)
	_, err := s.kv.Put(s.ctx, put("t", "1"))
	equal(t, "put after a restart", errText(err), noSpace)
	mustDel(t, s.kv, del("k", "l"))
	mustCompact(t, s.kv, s.revision(t))
	_, err = s.maintenance.Defragment(s.ctx, &pb.DefragmentRequest{})
	check(t, err)
	_, err = s.kv.Put(s.ctx, put("t", "1"))
	equal(t, "room alone does not disarm", errText(err), noSpace)
	resp, err := s.maintenance.Alarm(s.ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_NOSPACE,
		MemberID: mustGet(t, s.kv, get("t", "")).GetHeader().GetMemberId()})
	check(t, err)
	equal(t, "disarmed", len(resp.Alarms), 1)
	mustPut(t, s.kv, put("t", "1"))
	resp, err = s.maintenance.Alarm(s.ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_GET})
	check(t, err)
	equal(t, "alarms", len(resp.Alarms), 0)
}

func TestAlarmIsSetByHandForAMember(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	ask := func(action pb.AlarmRequest_AlarmAction, member uint64, alarm pb.AlarmType) string {
		resp, err := s.maintenance.Alarm(s.ctx, &pb.AlarmRequest{Action: action, MemberID: member, Alarm: alarm})
		check(t, err)
		var all []string
		for _, a := range resp.Alarms {
			all = append(all, fmt.Sprintf("%d %v", a.MemberID, a.Alarm))
		}
		return strings.Join(all, ", ")
	}
	equal(t, "none at first", ask(pb.AlarmRequest_GET, 0, pb.AlarmType_NONE), "")
	equal(t, "activate", ask(pb.AlarmRequest_ACTIVATE, 7, pb.AlarmType_NOSPACE), "7 NOSPACE")
	equal(t, "activate again", ask(pb.AlarmRequest_ACTIVATE, 7, pb.AlarmType_NOSPACE), "7 NOSPACE")
	equal(t, "activate none", ask(pb.AlarmRequest_ACTIVATE, 7, pb.AlarmType_NONE), "")
	equal(t, "all", ask(pb.AlarmRequest_GET, 0, pb.AlarmType_NONE), "7 NOSPACE")
	equal(t, "another kind", ask(pb.AlarmRequest_GET, 0, pb.AlarmType_CORRUPT), "")
	_, err := s.kv.Put(s.ctx, put("k", "v"))
	equal(t, "a put", errText(err), noSpace)
	equal(t, "deactivate", ask(pb.AlarmRequest_DEACTIVATE, 7, pb.AlarmType_NOSPACE), "7 NOSPACE")
	equal(t, "deactivate again", ask(pb.AlarmRequest_DEACTIVATE, 7, pb.AlarmType_NOSPACE), "")
	mustPut(t, s.kv, put("k", "v"))
}

func TestCorruptAlarmRefusesEverything(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	mustPut(t, s.kv, put("k", "v"))
	_, err := s.maintenance.Alarm(s.ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 7, Alarm: pb.AlarmType_CORRUPT})
	check(t, err)
	const corrupt = "DataLoss: etcdserver: corrupt cluster"
	_, err = s.kv.Put(s.ctx, put("k", "v"))
	equal(t, "put", errText(err), corrupt)
	_, err = s.kv.DeleteRange(s.ctx, del("k", ""))
	equal(t, "delete", errText(err), corrupt)
	_, err = s.kv.Txn(s.ctx, then(opPut(put("k", "v"))))
	equal(t, "txn", errText(err), corrupt)
	_, err = s.lease.LeaseGrant(s.ctx, &pb.LeaseGrantRequest{TTL: 10})
	equal(t, "grant", errText(err), corrupt)
	_, err = s.kv.Compact(s.ctx, &pb.CompactionRequest{Revision: 2})
	equal(t, "compact", errText(err), corrupt)
	code, body := httpGet(t, s.Server, "/health")
	equal(t, "health", fmt.Sprint(code, body), "503{\"health\":\"false\",\"reason\":\"ALARM CORRUPT\"}\n")
}

func TestDefragmentDoesNotDisturb(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for i := range 200 {
		mustPut(t, s.kv, put(fmt.Sprintf("k%d", i%20), fmt.Sprint(i)))
	}
	w := s.openWatch(t)
	w.create(watchFrom("k", "l", 2))
	w.events(200)
	_, err := s.maintenance.Defragment(s.ctx, &pb.DefragmentRequest{})
	check(t, err)
	mustPut(t, s.kv, put("k0", "after"))
	w.expect("id 0: put k0=after(2,202,11)")
	equal(t, "keys", mustGet(t, s.kv, get("k", "l")).Count, int64(20))
}

func TestHashOfTheWholeStore(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	hash := func() uint32 {
		resp, err := s.maintenance.Hash(s.ctx, &pb.HashRequest{})
		check(t, err)
		return resp.Hash
	}
	mustPut(t, s.kv, put("k", "v"))
	first := hash()
	mustPut(t, s.kv, put("k", "w"))
	equal(t, "another value gives another hash", hash() != first, true)
}
