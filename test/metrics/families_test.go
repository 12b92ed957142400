package metrics

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

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
	"etcd_debugging_lease_granted_total{}", "etcd_debugging_lease_revoked_total{}",
	"etcd_debugging_server_lease_expired_total{}", "etcd_debugging_lease_ttl_total_count{}", "etcd_debugging_lease_ttl_total_sum{}",
	"etcd_debugging_mvcc_db_compaction_keys_total{}", "etcd_debugging_mvcc_watcher_total{}", "etcd_debugging_mvcc_watch_stream_total{}",
	"etcd_server_health_success{}", "etcd_server_health_failures{}", "etcd_mvcc_hash_duration_seconds_count{}", "etcd_mvcc_hash_rev_duration_seconds_count{}",
	"etcd_disk_backend_defrag_duration_seconds_count{}", "etcd_disk_backend_snapshot_duration_seconds_count{}",
	"etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count{}",
}

// renewals: the history has one. Upstream's lock and election may add some: each opens a session, which renews its lease
// or is given up before it gets to that.
const renewals = "etcd_debugging_lease_renewed_total{}"

// exactFamilies must have the same value in every series that upstream has.
var exactFamilies = []string{
	"etcd_server_apply_duration_seconds", "etcd_server_client_requests_total", "etcd_server_healthchecks_total", "etcd_server_feature_enabled",
	"grpc_server_started_total", "grpc_server_handled_total", "grpc_server_msg_received_total", "grpc_server_msg_sent_total",
	"etcd_debugging_server_alarms", "etcd_server_learner_promote_failures", "etcd_cluster_version",
}

func isLeftOut(name string) bool {
	return slices.ContainsFunc(leftOut, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// settleReads is how often the pages are read until they agree: what is counted behind an answer may come late.
const settleReads = 20

// TestFamilies: what upstream shows is here under the same name, of the same type and with the same labels, and has moved
// where upstream's has.
func TestFamilies(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{nil, {"--metrics=extensive"}} {
		quire, upstream := harness.Start(t, flags...), harness.StartUpstream(t, flags...)
		got, want := after(t, quire), after(t, upstream)
		differences := compare(got, want)
		for range settleReads {
			if len(differences) == 0 {
				break
			}
			time.Sleep(100 * time.Millisecond)
			differences = compare(read(t, quire), read(t, upstream))
		}
		for _, d := range differences {
			t.Error(d)
		}
	}
}

func compare(got, want page) (differences []string) {
	differ := func(format string, args ...any) { differences = append(differences, fmt.Sprintf(format, args...)) }
	for _, name := range slices.Sorted(maps.Keys(want)) {
		f, g := want[name], got[name]
		switch {
		case isLeftOut(name) && g == nil:
		case isLeftOut(name):
			differ("%s is there and said to be left out", name)
		case g == nil:
			differ("%s (%s) is missing", name, f.kind)
		default:
			compareShapes(differ, name, g, f)
			compareValues(differ, name, g, f)
		}
	}
	for name := range got {
		if want[name] == nil && !strings.HasPrefix(name, "quire_") && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			differ("%s is quire's own and not called so", name)
		}
	}
	return differences
}

func compareShapes(differ func(string, ...any), name string, got, want *family) {
	if got.kind != want.kind {
		differ("%s is a %s, upstream's is a %s", name, got.kind, want.kind)
	}
	for labels := range want.labels {
		if !got.labels[labels] {
			differ("%s has the labels %v, upstream's has %q", name, slices.Collect(maps.Keys(got.labels)), labels)
		}
	}
	if len(want.bounds) > 0 && len(got.bounds) > 0 && !maps.Equal(got.bounds, want.bounds) {
		differ("%s has buckets up to %v, upstream's up to %v", name, slices.Sorted(maps.Keys(got.bounds)), slices.Sorted(maps.Keys(want.bounds)))
	}
}

func compareValues(differ func(string, ...any), name string, got, want *family) {
	same := slices.Contains(exactFamilies, name)
	for _, series := range slices.Sorted(maps.Keys(want.values)) {
		w, g := want.values[series], got.values[series]
		switch {
		case strings.HasPrefix(name, "go_"), strings.HasPrefix(name, "process_"):
		case unmoved[series] != "":
		case series == renewals:
			if g != 1 || w < 1 {
				differ("%s is %v, upstream's is %v; one lease was renewed", series, g, w)
			}
		case same && !strings.Contains(series, "_sum{"), slices.Contains(exact, series):
			if g != w {
				differ("%s is %v, upstream's is %v", series, g, w)
			}
		case w != 0 && g == 0:
			differ("%s is 0 (there: %v), upstream's is %v", series, got.values, w)
		}
	}
}

// after reads the page after the history.
func after(t *testing.T, s *harness.Server) page {
	t.Helper()
	history{T: t, s: s, c: s.Client(t), ctx: harness.Context(t)}.run()
	return read(t, s)
}
