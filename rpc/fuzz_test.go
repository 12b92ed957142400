package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "quire/api/etcdserverpb"
	epb "quire/api/v3electionpb"
	lpb "quire/api/v3lockpb"
)

// fuzzWait ends a call that waits for something that does not come: a lock, or
// the next event.
const fuzzWait = 30 * time.Millisecond

// FuzzMethods sends arbitrary bytes to every method of the table. The answer is
// a message of the method's type or a status, and the member goes on.
func FuzzMethods(f *testing.F) {
	m := newRealMember(f, func(c *Config) { c.Gateway = true })
	for i, method := range m.methods {
		f.Add(uint8(i), []byte{})
		for _, req := range fuzzRequests(method) {
			b, err := proto.Marshal(req)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(i), b)
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, req []byte) {
		method := m.methods[int(i)%len(m.methods)]
		ctx, cancel := context.WithTimeout(t.Context(), fuzzWait)
		defer cancel()
		if method.streaming() {
			fuzzStream(t, ctx, m.Server, method, req)
		} else {
			resp, err := m.Invoke(ctx, method.FullName(), req)
			checkOutcome(t, method, resp, err)
		}
		if _, err := m.Invoke(t.Context(), putMethod, putBytes(t, "alive", "")); err != nil {
			t.Errorf("after %s: %v", method.FullName(), err)
		}
	})
}

// fuzzStream sends req twice, for the state that the first one leaves.
func fuzzStream(t *testing.T, ctx context.Context, s *Server, method *Method, req []byte) {
	w, err := s.openLocal(ctx, method)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	for range 2 {
		if err := w.session.Recv(bytes.Clone(req)); err != nil {
			if !errors.Is(err, ErrRetryRecv) {
				checkOutcome(t, method, nil, err)
				return
			}
			break
		}
		if !method.ClientStreams {
			break
		}
	}
	for range 3 {
		resp, err := w.recv()
		checkOutcome(t, method, resp, err)
		if err != nil {
			return
		}
	}
}

// checkOutcome looks at how a call or a step of a stream has ended.
func checkOutcome(t *testing.T, m *Method, resp []byte, err error) {
	t.Helper()
	if err != nil {
		if st := StatusOf(err); st.Code == codes.OK || st.Text == "" {
			t.Errorf("%s: status %v %q", m.FullName(), st.Code, st.Text)
		}
		return
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(m.Service + "." + m.Name))
	if err != nil {
		t.Fatal(err)
	}
	typ, err := protoregistry.GlobalTypes.FindMessageByName(d.(protoreflect.MethodDescriptor).Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	msg := typ.New()
	if err := proto.Unmarshal(resp, msg.Interface()); err != nil {
		t.Errorf("%s: response is not valid: %v", m.FullName(), err)
	}
	if len(msg.GetUnknown()) > 0 {
		t.Errorf("%s: response has unknown fields", m.FullName())
	}
}

// fuzzRequests are requests to begin with.
func fuzzRequests(m *Method) []proto.Message {
	k, end := []byte("k"), []byte("l")
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: k, Value: k, Lease: 3}}}
	rng := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: k, RangeEnd: end}}}
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: k}}}
	cmp := &pb.Compare{Key: k, Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: 2}, RangeEnd: end}
	nested := &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Compare: []*pb.Compare{cmp}, Failure: []*pb.RequestOp{put}}}}
	leader := &epb.LeaderKey{Name: k, Key: []byte("k/3"), Rev: 2, Lease: 3}
	return map[string][]proto.Message{
		"Range":           {&pb.RangeRequest{Key: k, RangeEnd: end, Limit: 3, Revision: 2, SortOrder: 1, SortTarget: 3, CountOnly: true}},
		"RangeStream":     {&pb.RangeRequest{Key: k, RangeEnd: end, Limit: 3, Revision: 2}},
		"Put":             {&pb.PutRequest{Key: k, Value: k, Lease: 3, PrevKv: true, IgnoreLease: true}},
		"DeleteRange":     {&pb.DeleteRangeRequest{Key: k, RangeEnd: end, PrevKv: true}},
		"Txn":             {&pb.TxnRequest{Compare: []*pb.Compare{cmp}, Success: []*pb.RequestOp{put, rng}, Failure: []*pb.RequestOp{del, nested}}},
		"Compact":         {&pb.CompactionRequest{Revision: 2, Physical: true}},
		"Watch":           {&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: k, RangeEnd: end, StartRevision: 1, Fragment: true, PrevKv: true, WatchId: 7}}}},
		"LeaseGrant":      {&pb.LeaseGrantRequest{ID: 3, TTL: 100}},
		"LeaseRevoke":     {&pb.LeaseRevokeRequest{ID: 3}},
		"LeaseKeepAlive":  {&pb.LeaseKeepAliveRequest{ID: 3}},
		"LeaseTimeToLive": {&pb.LeaseTimeToLiveRequest{ID: 3, Keys: true}},
		"MemberAdd":       {&pb.MemberAddRequest{PeerURLs: []string{"http://a:1"}, IsLearner: true}},
		"MemberRemove":    {&pb.MemberRemoveRequest{ID: 7}},
		"MemberUpdate":    {&pb.MemberUpdateRequest{ID: 7, PeerURLs: []string{"http://a:1"}}},
		"MemberList":      {&pb.MemberListRequest{Linearizable: true}},
		"Alarm":           {&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, Alarm: pb.AlarmType_CORRUPT, MemberID: 7}},
		"HashKV":          {&pb.HashKVRequest{Revision: 2}},
		"MoveLeader":      {&pb.MoveLeaderRequest{TargetID: 7}},
		"Downgrade":       {&pb.DowngradeRequest{Version: "3.6.0", Action: pb.DowngradeRequest_VALIDATE}},
		"Authenticate":    {&pb.AuthenticateRequest{Name: "root", Password: "x"}},
		"Lock":            {&lpb.LockRequest{Name: k, Lease: 3}},
		"Unlock":          {&lpb.UnlockRequest{Key: []byte("k/3")}},
		"Campaign":        {&epb.CampaignRequest{Name: k, Lease: 3, Value: k}},
		"Proclaim":        {&epb.ProclaimRequest{Leader: leader, Value: k}},
		"Leader":          {&epb.LeaderRequest{Name: k}},
		"Observe":         {&epb.LeaderRequest{Name: k}},
		"Resign":          {&epb.ResignRequest{Leader: leader}},
	}[m.Name]
}

// FuzzJSON sends arbitrary bodies to arbitrary paths of the HTTP port. Whatever
// comes back under /v3/ is JSON.
func FuzzJSON(f *testing.F) {
	m := newRealMember(f, func(c *Config) { c.Gateway = true })
	h := m.ClientHandler()
	for path, body := range map[string]string{
		"/v3/kv/put":              `{"key":"Zm9v","value":"YmFy","lease":"0","prevKv":true}`,
		"/v3/kv/range":            `{"key":"Zg==","range_end":"Zw==","sort_order":"DESCEND","limit":3}`,
		"/v3/kv/txn":              `{"compare":[{"key":"Zm9v","target":"VERSION","version":"1"}],"success":[{"request_txn":{"success":[{"request_put":{"key":"YQ=="}}]}}]}`,
		"/v3/watch":               `{"create_request":{"key":"YQ==","start_revision":"1","filters":["NOPUT",1]}}{"progress_request":{}}`,
		"/v3/lease/keepalive":     `{"ID":1}{"ID":"2"}`,
		"/v3/lock/lock":           `{"name":"bA=="}`,
		"/v3/election/observe":    `{"name":"bA=="}`,
		"/v3beta/kv/deleterange":  `{"key":"AA==","range_end":"AA=="}`,
		"/v3/maintenance/status":  `{"a":[[[[]]]],"a":1e999}`,
		"/v3/cluster/member/list": "\xff\xfe{\x00}",
		"/health?exclude=NOSPACE": "",
		"/v3/../metrics":          strings.Repeat("[", 20000),
	} {
		f.Add(path, body)
	}
	f.Fuzz(func(t *testing.T, path, body string) {
		ctx, cancel := context.WithTimeout(t.Context(), fuzzWait)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://host/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Path = "/" + strings.TrimLeft(path, "/")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if !strings.HasPrefix(w.Result().Header.Get("Content-Type"), "application/json") {
			return // not the JSON API
		}
		for d := json.NewDecoder(w.Body); d.More(); {
			var v any
			if err := d.Decode(&v); err != nil {
				t.Fatalf("%s %q: answer %q: %v", path, body, w.Body, err)
			}
		}
	})
}
