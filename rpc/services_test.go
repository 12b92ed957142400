package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	pb "quire/api/etcdserverpb"
	"quire/engine"
	"quire/raft"
)

// wireMessage is a message of the API with vtprotobuf code.
type wireMessage interface {
	message
	UnmarshalVT([]byte) error
	MarshalVT() ([]byte, error)
}

func newTestServer(t testing.TB, f *fake, change ...func(*Config)) *Server {
	t.Helper()
	cfg := f.config()
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		s.Close(ctx)
	})
	return s
}

// call runs a method in process. The error, if any, is a *Status or of a context.
func call(t testing.TB, s *Server, method string, req, resp wireMessage) error {
	t.Helper()
	b, err := req.MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.Invoke(context.Background(), "/etcdserverpb."+method, b)
	if err != nil {
		return err
	}
	if err := resp.UnmarshalVT(out); err != nil {
		t.Fatalf("%s: response is not valid: %v", method, err)
	}
	return nil
}

func wantStatus(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	var st *Status
	if !errors.As(err, &st) {
		t.Fatalf("got %v, want %v %q", err, code, text)
	}
	if st.Code != code || st.Text != text {
		t.Errorf("got %v %q, want %v %q", st.Code, st.Text, code, text)
	}
}

func TestHeaderIsSplicedInFront(t *testing.T) {
	s := newTestServer(t, newFake())
	var put pb.PutResponse
	if err := call(t, s, "KV/Put", &pb.PutRequest{Key: []byte("a"), Value: []byte("b")}, &put); err != nil {
		t.Fatal(err)
	}
	want := pb.ResponseHeader{ClusterId: 9, MemberId: 7, Revision: 2, RaftTerm: 2}
	if h := put.Header; h == nil || h.ClusterId != want.ClusterId || h.MemberId != want.MemberId || h.Revision != want.Revision || h.RaftTerm != want.RaftTerm {
		t.Errorf("header %v, want %v", h, &want)
	}
	var rng pb.RangeResponse
	if err := call(t, s, "KV/Range", &pb.RangeRequest{Key: []byte("a")}, &rng); err != nil {
		t.Fatal(err)
	}
	if rng.Header.Revision != 2 || rng.Count != 1 || string(rng.Kvs[0].Value) != "b" {
		t.Errorf("range: %v", &rng)
	}
}

func TestValidation(t *testing.T) {
	k := []byte("k")
	put := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
	}
	puts := func(n int) (ops []*pb.RequestOp) {
		for i := range n {
			ops = append(ops, put(string(rune('a'+i))))
		}
		return ops
	}
	nest := func(t *pb.TxnRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
	}
	invalid := codes.InvalidArgument
	for _, tc := range []struct {
		method string
		req    wireMessage
		code   codes.Code
		text   string
	}{
		{"KV/Range", &pb.RangeRequest{}, invalid, "etcdserver: key is not provided"},
		{"KV/Range", &pb.RangeRequest{Key: k, SortOrder: 3}, invalid, "etcdserver: invalid sort option"},
		{"KV/Range", &pb.RangeRequest{Key: k, SortTarget: 5}, invalid, "etcdserver: invalid sort option"},
		{"KV/Range", &pb.RangeRequest{Key: k, SortTarget: -1}, invalid, "etcdserver: invalid sort option"},
		{"KV/Range", &pb.RangeRequest{Key: k, Revision: 99}, codes.OutOfRange, "etcdserver: mvcc: required revision is a future revision"},
		{"KV/Put", &pb.PutRequest{}, invalid, "etcdserver: key is not provided"},
		{"KV/Put", &pb.PutRequest{Key: k, Value: k, IgnoreValue: true}, invalid, "etcdserver: value is provided"},
		{"KV/Put", &pb.PutRequest{Key: k, Lease: 1, IgnoreLease: true}, invalid, "etcdserver: lease is provided"},
		{"KV/Put", &pb.PutRequest{Key: k, Value: make([]byte, 3<<19)}, invalid, "etcdserver: request is too large"},
		{"KV/DeleteRange", &pb.DeleteRangeRequest{RangeEnd: k}, invalid, "etcdserver: key is not provided"},
		{"KV/Txn", &pb.TxnRequest{Success: puts(5)}, invalid, "etcdserver: too many operations in txn request"},
		{"KV/Txn", &pb.TxnRequest{Failure: puts(5)}, invalid, "etcdserver: too many operations in txn request"},
		{"KV/Txn", &pb.TxnRequest{Success: []*pb.RequestOp{put("a"), put("b"), put("c"), nest(&pb.TxnRequest{Success: []*pb.RequestOp{put("d")}})}},
			invalid, "etcdserver: too many operations in txn request"},
		{"KV/Txn", &pb.TxnRequest{Compare: []*pb.Compare{{}}}, invalid, "etcdserver: key is not provided"},
		{"KV/Txn", &pb.TxnRequest{Success: []*pb.RequestOp{{}}}, invalid, "etcdserver: key not found"},
		{"KV/Txn", &pb.TxnRequest{Success: []*pb.RequestOp{put("")}}, invalid, "etcdserver: key is not provided"},
		{"KV/Txn", &pb.TxnRequest{Success: []*pb.RequestOp{put("a"), put("a")}}, invalid, "etcdserver: duplicate key given in txn request"},
		{"Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 5}, codes.NotFound, "etcdserver: requested lease not found"},
		{"Cluster/MemberAdd", &pb.MemberAddRequest{}, invalid, "etcdserver: given member URLs are invalid"},
		{"Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{"ftp://a:1"}}, invalid, "etcdserver: given member URLs are invalid"},
		{"Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: 5}, codes.NotFound, "etcdserver: member not found"},
		{"Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: 5}, codes.FailedPrecondition, "etcdserver: bad leader transferee"},
		{"Maintenance/Downgrade", &pb.DowngradeRequest{}, invalid, "etcdserver: wrong downgrade target version format"},
		{"Auth/Authenticate", &pb.AuthenticateRequest{Name: "root"}, codes.FailedPrecondition, "etcdserver: authentication is not enabled"},
	} {
		s := newTestServer(t, newFake(), func(c *Config) { c.MaxTxnOps = 4 })
		var resp pb.TxnResponse
		err := call(t, s, tc.method, tc.req, &resp)
		if err == nil {
			t.Errorf("%s %v: no error, want %q", tc.method, tc.req, tc.text)
			continue
		}
		wantStatus(t, err, tc.code, tc.text)
	}
}

func TestMalformedRequests(t *testing.T) {
	s := newTestServer(t, newFake())
	for _, m := range s.methods {
		if m.streaming() || m.Service == authService {
			continue
		}
		_, err := s.Invoke(context.Background(), m.FullName(), []byte{0x0a, 0xff, 0xff})
		var st *Status
		if m.Name == "Status" || m.Name == "Hash" || m.Name == "Defragment" || m.Name == "LeaseLeases" {
			continue // their requests have no fields, they are not looked at
		}
		if !errors.As(err, &st) || st.Code != codes.Internal {
			t.Errorf("%s: %v", m.FullName(), err)
		}
	}
}

func TestLeases(t *testing.T) {
	f := newFake()
	s := newTestServer(t, f)
	var grant pb.LeaseGrantResponse
	if err := call(t, s, "Lease/LeaseGrant", &pb.LeaseGrantRequest{TTL: 30}, &grant); err != nil {
		t.Fatal(err)
	}
	if grant.ID != 4711 || grant.TTL != 30 {
		t.Errorf("grant without an ID: %v", &grant)
	}
	err := call(t, s, "Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 4711, TTL: 30}, &grant)
	wantStatus(t, err, codes.FailedPrecondition, "etcdserver: lease already exists")
	var ttl pb.LeaseTimeToLiveResponse
	if err := call(t, s, "Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: 4711, Keys: true}, &ttl); err != nil {
		t.Fatal(err)
	}
	if ttl.TTL != 30 || ttl.GrantedTTL != 30 || len(ttl.Keys) != 1 || ttl.Header.Revision != 1 {
		t.Errorf("time to live: %v", &ttl)
	}
	if err := call(t, s, "Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: 1}, &ttl); err != nil || ttl.TTL != -1 {
		t.Errorf("time to live of an unknown lease: %v, %v", &ttl, err)
	}
	var list pb.LeaseLeasesResponse
	if err := call(t, s, "Lease/LeaseLeases", &pb.LeaseLeasesRequest{}, &list); err != nil || len(list.Leases) != 1 || list.Leases[0].ID != 4711 {
		t.Errorf("leases: %v, %v", &list, err)
	}
}

func TestQuotaRaisesTheAlarmOnce(t *testing.T) {
	f := newFake()
	f.quota = 5000
	s := newTestServer(t, f)
	var resp pb.PutResponse
	big := &pb.PutRequest{Key: []byte("k"), Value: make([]byte, 800)}
	for range 3 {
		wantStatus(t, call(t, s, "KV/Put", big, &resp), codes.ResourceExhausted, "etcdserver: mvcc: database space exceeded")
	}
	if !slices.Equal(f.ops, []engine.OpKind{engine.OpAlarm}) {
		t.Errorf("proposed %v, want one alarm", f.ops)
	}
	if !f.HasAlarm(pb.AlarmType_NOSPACE) || f.alarms[0].MemberID != 7 {
		t.Errorf("alarms %v", f.alarms)
	}
	// Deletes, reads and transactions that only delete cost nothing.
	for _, c := range []struct {
		method string
		req    wireMessage
	}{
		{"KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte("k")}},
		{"KV/Range", &pb.RangeRequest{Key: []byte("k")}},
		{"KV/Txn", &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("k")}}}}}},
	} {
		if err := call(t, s, c.method, c.req, &pb.TxnResponse{}); err != nil {
			t.Errorf("%s: %v", c.method, err)
		}
	}
}

func TestRaftErrorsBecomeEtcdsStatuses(t *testing.T) {
	for _, tc := range []struct {
		err  error
		code codes.Code
		text string
	}{
		{raft.ErrTooManyRequests, codes.ResourceExhausted, "etcdserver: too many requests"},
		{raft.ErrStopped, codes.Unavailable, "etcdserver: server stopped"},
		{raft.ErrTimeout, codes.Unavailable, "etcdserver: request timed out"},
		{errors.Join(raft.ErrLeaderChanged), codes.Unavailable, "etcdserver: leader changed"},
		{errors.New("something else"), codes.Unknown, "something else"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "context deadline exceeded"},
	} {
		f := newFake()
		f.err = tc.err
		s := newTestServer(t, f)
		wantStatus(t, call(t, s, "KV/Put", &pb.PutRequest{Key: []byte("k")}, &pb.PutResponse{}), tc.code, tc.text)
		if p := s.proposals.pending.Load(); p != 0 {
			t.Errorf("%v: %d proposals pending", tc.err, p)
		}
	}
}

func TestPhysicalCompactionWaits(t *testing.T) {
	f := newFake()
	f.compac = make(chan struct{})
	s := newTestServer(t, f)
	done := make(chan error, 1)
	go func() {
		done <- call(t, s, "KV/Compact", &pb.CompactionRequest{Revision: 1, Physical: true}, &pb.CompactionResponse{})
	}()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	close(f.compac)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestStatus(t *testing.T) {
	f := newFake()
	f.alarms = []*pb.AlarmMember{{MemberID: 7, Alarm: pb.AlarmType_NOSPACE}}
	s := newTestServer(t, f)
	f.mu.Lock()
	f.status.Lead = 0
	f.mu.Unlock()
	var st pb.StatusResponse
	if err := call(t, s, "Maintenance/Status", &pb.StatusRequest{}, &st); err != nil {
		t.Fatal(err)
	}
	if st.Version != "3.7.1" || st.DbSize != 4096 || st.RaftIndex != 5 || st.RaftAppliedIndex != 5 || st.RaftTerm != 2 || st.StorageVersion != "3.7.0" {
		t.Errorf("status %v", &st)
	}
	if !slices.Equal(st.Errors, []string{"etcdserver: no leader", "memberID:7 alarm:NOSPACE"}) {
		t.Errorf("errors %q", st.Errors)
	}
}

func TestLearnerAnswersOnlyWhatIsStale(t *testing.T) {
	f := newFake()
	f.status.IsLearner = true
	s := newTestServer(t, f)
	for _, tc := range []struct {
		method string
		req    wireMessage
		ok     bool
	}{
		{"Maintenance/Status", &pb.StatusRequest{}, true},
		{"KV/Range", &pb.RangeRequest{Key: []byte("k"), Serializable: true}, true},
		{"KV/Range", &pb.RangeRequest{Key: []byte("k")}, false},
		{"KV/Put", &pb.PutRequest{Key: []byte("k")}, false},
	} {
		err := call(t, s, tc.method, tc.req, &pb.StatusResponse{})
		if tc.ok && err != nil {
			t.Errorf("%s: %v", tc.method, err)
		}
		if !tc.ok {
			wantStatus(t, err, codes.FailedPrecondition, "etcdserver: rpc not supported for learner")
		}
	}
}

// TestMembershipAnswers checks what goes in and out of the Cluster service; what
// it does is package membership's.
func TestMembershipAnswers(t *testing.T) {
	s := newTestServer(t, newFake())
	var add pb.MemberAddResponse
	err := call(t, s, "Cluster/MemberAdd", &pb.MemberAddRequest{PeerURLs: []string{" http://b:1", "unix://sock"}, IsLearner: true}, &add)
	if err != nil || add.Member.ID != 8 || !add.Member.IsLearner || fmt.Sprint(add.Member.PeerURLs) != "[http://b:1 unix://sock]" || len(add.Members) != 2 {
		t.Errorf("add: %v, %v", &add, err)
	}
	if h := add.Header; h == nil || h.ClusterId != 9 || h.MemberId != 7 || h.RaftTerm != 2 || h.Revision != 0 {
		t.Errorf("header %v: etcd's has no revision", h)
	}
	var remove pb.MemberRemoveResponse
	if err := call(t, s, "Cluster/MemberRemove", &pb.MemberRemoveRequest{ID: 7}, &remove); err != nil || remove.Members[0].Name != "removed" {
		t.Errorf("remove: %v, %v", &remove, err)
	}
	for urls, want := range map[string]string{"http://b:1": "sound true", "b": "sound false", "": "sound false"} {
		var update pb.MemberUpdateResponse
		err := call(t, s, "Cluster/MemberUpdate", &pb.MemberUpdateRequest{ID: 7, PeerURLs: []string{urls}}, &update)
		if err != nil || update.Members[0].Name != want || update.Members[0].PeerURLs[0] != urls {
			t.Errorf("update to %q: %v, %v", urls, &update, err)
		}
	}
	var promote pb.MemberPromoteResponse
	if err := call(t, s, "Cluster/MemberPromote", &pb.MemberPromoteRequest{ID: 7}, &promote); err != nil || promote.Members[0].Name != "promoted" {
		t.Errorf("promote: %v, %v", &promote, err)
	}
	var down pb.DowngradeResponse
	if err := call(t, s, "Maintenance/Downgrade", &pb.DowngradeRequest{Version: "3.6"}, &down); err != nil || down.Version != "3.6!" || down.Header.Revision != 1 {
		t.Errorf("downgrade: %v, %v", &down, err)
	}
}

// TestMoveLeader moves to this member, which is none, and to one that does not
// answer.
func TestMoveLeader(t *testing.T) {
	moved := make(chan uint64, 1)
	members := []*pb.Member{{ID: 7}, {ID: 8}, {ID: 9, IsLearner: true}}
	s := newTestServer(t, newFake(), func(c *Config) {
		c.Members = func() []*pb.Member { return members }
		c.MoveLeader = func(ctx context.Context, to uint64) error {
			moved <- to
			<-ctx.Done()
			return ctx.Err()
		}
	})
	s.cfg.ElectionTimeout = -2490 * time.Millisecond // a request timeout of 20 ms
	var resp pb.MoveLeaderResponse
	if err := call(t, s, "Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: 7}, &resp); err != nil || len(moved) != 0 {
		t.Errorf("to the leader itself: %v", err)
	}
	err := call(t, s, "Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: 8}, &resp)
	wantStatus(t, err, codes.Unknown, "etcdserver: request timed out, leader transfer took too long")
	if to := <-moved; to != 8 {
		t.Errorf("moved to %d", to)
	}
	err = call(t, s, "Maintenance/MoveLeader", &pb.MoveLeaderRequest{TargetID: 9}, &resp)
	wantStatus(t, err, codes.FailedPrecondition, "etcdserver: bad leader transferee")
}
