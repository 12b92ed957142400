package gateway

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"testing"
)

var endpoints = []string{
	"/health", "/health?serializable=true", "/health?serializable=yes", "/health?exclude=NOSPACE", "/health?exclude=CORRUPT", "/health?exclude=NOSPACE&exclude=CORRUPT",
	"/health?exclude=", "/health/", "/health/x",
	"/livez", "/livez/", "/livez?verbose", "/livez?verbose=false", "/livez?exclude=serializable_read&verbose", "/livez/serializable_read", "/livez/serializable_read?verbose", "/livez/nothing",
	"/readyz", "/readyz?verbose&exclude=log_write", "/readyz?verbose&exclude=log_write&exclude=linearizable_read&exclude=data_corruption", "/readyz?exclude=nothing",
	"/readyz/data_corruption", "/readyz/data_corruption?verbose", "/readyz/serializable_read", "/readyz/linearizable_read", "/readyz/non_learner", "/readyz/nothing",
	"/version", "/version/", "/version?a=b",
	"/metrics/", "/debug", "/debug/", "/debug/vars/", "/debug/pprof/", "/debug/pprof", "/", "/favicon.ico", "/config/local/log", "/v2/keys",
}

// TestEndpoints compares what is served beside the API, on a sound server and on one with each kind of alarm.
func TestEndpoints(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	alarm := func(action, kind string) request {
		return request{path: "/v3/maintenance/alarm", body: `{"action":"` + action + `","memberID":"5","alarm":"` + kind + `"}`}
	}
	for _, change := range [][]request{
		nil,
		{alarm("ACTIVATE", "NOSPACE")},
		{alarm("DEACTIVATE", "NOSPACE"), alarm("ACTIVATE", "CORRUPT")},
		{alarm("DEACTIVATE", "CORRUPT")},
	} {
		p.same(t, change...)
		for _, path := range endpoints {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
				p.same(t, request{method: method, path: path, anyOrder: true, without: "[+]log_write ok\n"}) // upstream makes its checks in any order
			}
		}
	}
}

// TestEndpointsWithProfiles: what --enable-pprof adds is there.
func TestEndpointsWithProfiles(t *testing.T) {
	t.Parallel()
	p := startPair(t, "--enable-pprof")
	for _, path := range []string{"/debug/pprof/cmdline", "/debug/pprof/goroutine?debug=1", "/debug/pprof/heap", "/debug/pprof/nothing", "/debug/pprof/symbol"} {
		got, want := send(t, p.quire, request{path: path}), send(t, p.upstream, request{path: path})
		if got.status != want.status || got.headers != want.headers || (got.body == "") != (want.body == "") {
			t.Errorf("%s: got %d %s, want %d %s", path, got.status, got.headers, want.status, want.headers)
		}
	}
}

// TestVars: the process's variables are JSON with what Go publishes, and raft's state has upstream's fields.
func TestVars(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	got, want := send(t, p.quire, request{path: "/debug/vars"}), send(t, p.upstream, request{path: "/debug/vars"})
	if got.status != want.status || got.headers != want.headers {
		t.Errorf("got %d %s, want %d %s", got.status, got.headers, want.status, want.headers)
	}
	var vars [2]map[string]any
	for i, body := range []string{got.body, want.body} {
		if err := json.Unmarshal([]byte(body), &vars[i]); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"cmdline", "memstats", "file_descriptor_limit", "raft.status"} {
		if (vars[0][name] != nil) != (vars[1][name] != nil) {
			t.Errorf("%s is %v, upstream's is %v", name, vars[0][name], vars[1][name])
		}
	}
	fields := func(m any) []string { return slices.Sorted(maps.Keys(m.(map[string]any))) }
	if a, b := fields(vars[0]["raft.status"]), fields(vars[1]["raft.status"]); !slices.Equal(a, b) {
		t.Errorf("raft.status has %v, upstream's %v", a, b)
	}
}
