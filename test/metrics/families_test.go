package metrics

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"quire/test/harness"
)

// leftOut are upstream's families that quire does not have. docs/metrics.md gives the reasons.
var leftOut = []string{"etcd_grpc_proxy_"}

// unmoved are series that move at upstream and not here, or with other labels.
var unmoved = map[string]string{
	"etcd_mvcc_db_open_read_transactions{}":                                                      "upstream has one open at all times",
	"etcd_server_apply_duration_seconds_sum{op=\"unknown\",success=\"true\",version=\"v3\"}":     "AuthStatus, which is no operation here",
	"etcd_server_apply_duration_seconds_count{op=\"unknown\",success=\"true\",version=\"v3\"}":   "likewise",
	"etcd_server_learner_promote_failures{Reason=\"membership: ID not found\"}":                  "the reason is the text that clients get",
	"etcd_server_request_duration_seconds_count{success=\"true\",type=\"ClusterMemberAttrSet\"}": "made by the process itself, which counts clients' requests only",
	"etcd_server_request_duration_seconds_sum{success=\"true\",type=\"ClusterMemberAttrSet\"}":   "likewise",
	"etcd_server_request_duration_seconds_count{success=\"true\",type=\"ClusterVersionSet\"}":    "likewise",
	"etcd_server_request_duration_seconds_sum{success=\"true\",type=\"ClusterVersionSet\"}":      "likewise",
}

// exact are counters that must have upstream's value after the same history.
var exact = []string{
	"etcd_mvcc_put_total{}", "etcd_mvcc_delete_total{}", "etcd_mvcc_txn_total{}",
	"etcd_debugging_mvcc_total_put_size_in_bytes{}", "etcd_debugging_mvcc_current_revision{}", "etcd_debugging_mvcc_compact_revision{}",
	"etcd_debugging_lease_granted_total{}", "etcd_debugging_lease_revoked_total{}", "etcd_debugging_lease_renewed_total{}",
	"etcd_debugging_server_lease_expired_total{}", "etcd_debugging_lease_ttl_total_count{}", "etcd_debugging_lease_ttl_total_sum{}",
	"etcd_debugging_mvcc_db_compaction_keys_total{}", "etcd_debugging_mvcc_watcher_total{}", "etcd_debugging_mvcc_watch_stream_total{}",
	"etcd_server_health_success{}", "etcd_server_health_failures{}", "etcd_mvcc_hash_duration_seconds_count{}", "etcd_mvcc_hash_rev_duration_seconds_count{}",
	"etcd_disk_backend_defrag_duration_seconds_count{}", "etcd_disk_backend_snapshot_duration_seconds_count{}",
	"etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count{}",
}

// exactFamilies must have the same value in every series that upstream has.
var exactFamilies = []string{
	"etcd_server_apply_duration_seconds", "etcd_server_client_requests_total", "etcd_server_healthchecks_total", "etcd_server_feature_enabled",
	"grpc_server_started_total", "grpc_server_handled_total", "grpc_server_msg_received_total", "grpc_server_msg_sent_total",
	"etcd_debugging_server_alarms", "etcd_server_learner_promote_failures", "etcd_cluster_version",
}

func isLeftOut(name string) bool {
	return slices.ContainsFunc(leftOut, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// TestFamilies: what upstream shows is here under the same name, of the same type and with the same labels, and has moved
// where upstream's has.
func TestFamilies(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{nil, {"--metrics=extensive"}} {
		got, want := after(t, harness.Start(t, flags...)), after(t, harness.StartUpstream(t, flags...))
		for _, name := range slices.Sorted(maps.Keys(want)) {
			f, g := want[name], got[name]
			if isLeftOut(name) {
				if g != nil {
					t.Errorf("%s is there and said to be left out", name)
				}
				continue
			}
			if g == nil {
				t.Errorf("%s (%s) is missing", name, f.kind)
				continue
			}
			if g.kind != f.kind {
				t.Errorf("%s is a %s, upstream's is a %s", name, g.kind, f.kind)
			}
			for labels := range f.labels {
				if !g.labels[labels] {
					t.Errorf("%s has the labels %v, upstream's has %q", name, slices.Collect(maps.Keys(g.labels)), labels)
				}
			}
			if len(f.bounds) > 0 && len(g.bounds) > 0 && !maps.Equal(g.bounds, f.bounds) {
				t.Errorf("%s has buckets up to %v, upstream's up to %v", name, slices.Sorted(maps.Keys(g.bounds)), slices.Sorted(maps.Keys(f.bounds)))
			}
			compareValues(t, name, g, f)
		}
		for name := range got {
			if want[name] == nil && !strings.HasPrefix(name, "quire_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
				t.Errorf("%s is quire's own and not called so", name)
			}
		}
	}
}

func compareValues(t *testing.T, name string, got, want *family) {
	t.Helper()
	same := slices.Contains(exactFamilies, name)
	for _, series := range slices.Sorted(maps.Keys(want.values)) {
		w, g := want.values[series], got.values[series]
		switch {
		case strings.HasPrefix(name, "go_"), strings.HasPrefix(name, "process_"):
		case unmoved[series] != "":
		case same && !strings.Contains(series, "_sum{"), slices.Contains(exact, series):
			if g != w {
				t.Errorf("%s is %v, upstream's is %v", series, g, w)
			}
		case w != 0 && g == 0:
			t.Errorf("%s is 0 (there: %v), upstream's is %v", series, got.values, w)
		}
	}
}

// after reads the page after the history.
func after(t *testing.T, s *harness.Server) page {
	t.Helper()
	history{T: t, s: s, c: s.Client(t), ctx: harness.Context(t)}.run()
	return read(t, s)
}
