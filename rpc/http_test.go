package rpc

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "quire/api/etcdserverpb"
)

func get(t testing.TB, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestHTTPOnTheClientPort(t *testing.T) {
	f := newFake()
	s := newTestServer(t, f)
	_, addr := dial(t, s)
	noSpace := func() { f.alarms = []*pb.AlarmMember{{MemberID: 7, Alarm: pb.AlarmType_NOSPACE}} }
	noLeader := func() { f.alarms, f.status.Lead = nil, 0 }
	withLeader := func() { f.status.Lead = 7 }
	corrupt := func() {
		f.alarms = []*pb.AlarmMember{{MemberID: 7, Alarm: pb.AlarmType_CORRUPT}}
	}
	for _, tc := range []struct {
		path string
		set  func()
		code int
		body string
	}{
		{"/health", nil, 200, `{"health":"true","reason":""}`},
		{"/version", nil, 200, `{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}`},
		{"/health", noSpace, 503, `{"health":"false","reason":"ALARM NOSPACE"}` + "\n"},
		{"/health?exclude=NOSPACE", nil, 200, `{"health":"true","reason":""}`},
		{"/health", noLeader, 503, `{"health":"false","reason":"RAFT NO LEADER"}` + "\n"},
		{"/health?serializable=true", nil, 200, `{"health":"true","reason":""}`},
		{"/livez", nil, 200, "ok\n"},
		{"/readyz?exclude=linearizable_read", nil, 200, "ok\n"},
		{"/readyz?verbose=true", withLeader, 200, "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\nok\n"},
		{"/readyz", corrupt, 503, "[-]data_corruption failed: alarm activated: CORRUPT\n[+]serializable_read ok\n[+]linearizable_read ok\n[+]non_learner ok\n\n"},
		{"/readyz/serializable_read", nil, 200, "ok\n"},
		{"/livez", corrupt, 200, "ok\n"},
		{"/health", corrupt, 503, `{"health":"false","reason":"ALARM CORRUPT"}` + "\n"},
		{"/health?exclude=CORRUPT", corrupt, 200, `{"health":"true","reason":""}`},
		{"/livez/nothing", nil, 404, "404 page not found\n"},
		{"/debug/pprof/", nil, 404, "404 page not found\n"},
	} {
		if tc.set != nil {
			f.mu.Lock()
			tc.set()
			f.mu.Unlock()
		}
		if code, body := get(t, "http://"+addr+tc.path); code != tc.code || body != tc.body {
			t.Errorf("%s: %d %q, want %d %q", tc.path, code, body, tc.code, tc.body)
		}
	}
	resp, err := http.Post("http://"+addr+"/health", "", nil)
	if err != nil || resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET" {
		t.Errorf("POST /health: %v, %v", resp, err)
	}
	if code, body := get(t, "http://"+addr+"/debug/vars"); code != 200 || !strings.Contains(body, "memstats") {
		t.Errorf("/debug/vars: %d", code)
	}
}

func TestMetrics(t *testing.T) {
	f := newFake()
	s := newTestServer(t, f, func(c *Config) { c.ExtensiveMetrics = true })
	conn, addr := dial(t, s)
	ctx := context.Background()
	for _, key := range []string{"a", "b", ""} {
		_ = conn.Invoke(ctx, putMethod, &pb.PutRequest{Key: []byte(key)}, &pb.PutResponse{})
	}
	_, body := get(t, "http://"+addr+"/metrics")
	for _, line := range []string{
		`grpc_server_started_total{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 3`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 2`,
		`grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Watch",grpc_service="etcdserverpb.Watch",grpc_type="bidi_stream"} 0`,
		`grpc_server_handling_seconds_count{grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 3`,
		`etcd_server_request_duration_seconds_count{success="true",type="Put"} 2`,
		`etcd_server_has_leader 1`,
		`etcd_server_id{server_id="7"} 1`,
		`etcd_server_version{server_version="3.7.1"} 1`,
		`etcd_cluster_version{cluster_version="3.7"} 1`,
		`etcd_mvcc_db_total_size_in_bytes 4096`,
		`etcd_server_proposals_pending 0`,
	} {
		if !strings.Contains(body, "\n"+line+"\n") {
			t.Errorf("missing %s", line)
		}
	}
}

func TestFrontendSortsByPreface(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front := NewFrontend(lis, FrontendConfig{})
	for _, tc := range []struct {
		pieces []string
		to     net.Listener
	}{
		{[]string{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"}, front.GRPC()},
		{[]string{"P", "R", "I", " * HTTP/2.0\r\n"}, front.GRPC()},
		{[]string{"GET / HTTP/1.1\r\n"}, front.HTTP()},
		{[]string{"P", "UT / HTTP/1.1\r\n"}, front.HTTP()},
		{[]string{"PRIX"}, front.HTTP()},
		{[]string{"G"}, front.HTTP()}, // decided at the first byte that differs
	} {
		client, err := net.Dial("tcp", lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range tc.pieces {
			if _, err := client.Write([]byte(p)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond)
		}
		conn, err := tc.to.Accept()
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Join(tc.pieces, "")
		got := make([]byte, len(want))
		if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, []byte(want)) {
			t.Errorf("%q arrived as %q, %v", want, got, err)
		}
		_ = client.Close()
		_ = conn.Close()
	}
	silent, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	time.Sleep(5 * time.Millisecond)
	done := make(chan struct{})
	go func() { _ = front.Close(); close(done) }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("a silent connection holds up Close")
	}
	if _, err := front.GRPC().Accept(); err == nil {
		t.Error("a closed frontend gives out connections")
	}
}
