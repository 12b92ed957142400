package realclient

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"quire/test/harness"
)

func TestHealthService(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	health := healthpb.NewHealthClient(s.Conn(t))
	resp, err := health.Check(s.ctx, &healthpb.HealthCheckRequest{})
	check(t, err)
	equal(t, "whole server", resp.Status, healthpb.HealthCheckResponse_SERVING)
	_, err = health.Check(s.ctx, &healthpb.HealthCheckRequest{Service: "nobody"})
	wantErr(t, "unknown service", err, codes.NotFound, "unknown service")
	for _, service := range []string{"etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "etcdserverpb.Cluster", "etcdserverpb.Maintenance"} {
		_, err := health.Check(s.ctx, &healthpb.HealthCheckRequest{Service: service})
		equal(t, service, errText(err), "NotFound: unknown service")
	}
}

func TestHealthServiceWatch(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	health := healthpb.NewHealthClient(s.Conn(t))
	for service, want := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		"":       healthpb.HealthCheckResponse_SERVING,
		"nobody": healthpb.HealthCheckResponse_SERVICE_UNKNOWN,
	} {
		stream, err := health.Watch(s.ctx, &healthpb.HealthCheckRequest{Service: service})
		check(t, err)
		resp, err := stream.Recv()
		check(t, err)
		equal(t, "status of "+service, resp.Status, want)
	}
}

// TestReflectionListsTheServices is quire's own: upstream has no reflection.
func TestReflectionListsTheServices(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream has no reflection")
	}
	s := startServer(t)
	stream, err := reflectionpb.NewServerReflectionClient(s.Conn(t)).ServerReflectionInfo(s.ctx)
	check(t, err)
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		check(t, stream.Send(r))
		resp, err := stream.Recv()
		check(t, err)
		return resp
	}
	resp := ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
	var names []string
	for _, service := range resp.GetListServicesResponse().GetService() {
		names = append(names, service.Name)
	}
	for _, want := range []string{
		"etcdserverpb.KV", "etcdserverpb.Watch", "etcdserverpb.Lease", "etcdserverpb.Cluster", "etcdserverpb.Maintenance",
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
	} {
		if !slices.Contains(names, want) {
			t.Errorf("%s is not among the services: %s", want, strings.Join(names, " "))
		}
	}
	resp = ask(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "etcdserverpb.KV"}})
	equal(t, "a descriptor is given", len(resp.GetFileDescriptorResponse().GetFileDescriptorProto()) > 0, true)
}

func TestHTTPEndpoints(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	version := "3.7.1"
	if _, body := httpGet(t, s.Server, "/version"); !strings.Contains(body, version) {
		version = strings.Split(body, `"`)[3]
	}
	tests := []struct {
		path, want string
	}{
		{"/health", `200 {"health":"true","reason":""}`},
		{"/health?serializable=true", `200 {"health":"true","reason":""}`},
		{"/health?exclude=NOSPACE", `200 {"health":"true","reason":""}`},
		{"/version", fmt.Sprintf(`200 {"etcdserver":"%s","etcdcluster":"3.7.0","storage":"3.7.0"}`, version)},
		{"/livez", "200 ok\n"},
		{"/readyz", "200 ok\n"},
		{"/nothing", "404 404 page not found\n"},
	}
	for _, tt := range tests {
		code, body := httpGet(t, s.Server, tt.path)
		equal(t, tt.path, fmt.Sprint(code, " ", body), tt.want)
	}
	if !strings.HasPrefix(version, "3.7.") {
		t.Errorf("version %q", version)
	}
}

func TestHTTPMethodsOfHealth(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	resp, err := http.Post("http://"+s.Endpoint+"/health", "text/plain", nil)
	check(t, err)
	resp.Body.Close()
	equal(t, "POST", resp.StatusCode, http.StatusMethodNotAllowed)
}

// TestMetricsThatDashboardsAndAlertsRead names the families that etcd's own dashboards, alerts and operators use.
func TestMetricsThatDashboardsAndAlertsRead(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	mustPut(t, s.kv, put("k", "v"))
	_, body := httpGet(t, s.Server, "/metrics")
	for _, family := range []string{
		"etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_leader_changes_seen_total", "etcd_server_proposals_committed_total",
		"etcd_server_proposals_applied_total", "etcd_server_proposals_pending", "etcd_server_proposals_failed_total", "etcd_server_version",
		"etcd_server_quota_backend_bytes", "etcd_server_slow_apply_total", "etcd_server_id", "etcd_cluster_version",
		"etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes", "etcd_mvcc_put_total", "etcd_mvcc_delete_total",
		"etcd_mvcc_txn_total", "etcd_mvcc_range_total", "etcd_debugging_mvcc_keys_total", "etcd_debugging_mvcc_current_revision",
		"etcd_debugging_mvcc_compact_revision", "etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_watch_stream_total",
		"etcd_debugging_mvcc_slow_watcher_total", "etcd_debugging_mvcc_events_total", "etcd_debugging_lease_granted_total",
		"etcd_disk_wal_fsync_duration_seconds", "etcd_disk_backend_commit_duration_seconds", "etcd_network_client_grpc_received_bytes_total",
		"etcd_network_client_grpc_sent_bytes_total", "grpc_server_handled_total", "grpc_server_started_total",
		"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "go_goroutines",
	} {
		if !strings.Contains(body, "# TYPE "+family+" ") {
			t.Errorf("no metric family %s", family)
		}
	}
	equal(t, "has leader", metric(t, s.Server, "etcd_server_has_leader"), 1)
	equal(t, "revision", metric(t, s.Server, "etcd_debugging_mvcc_current_revision"), 2)
	equal(t, "keys", metric(t, s.Server, "etcd_debugging_mvcc_keys_total"), 1)
	equal(t, "puts counted by gRPC", metric(t, s.Server, `grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"}`), 1)
}
