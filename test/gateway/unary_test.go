package gateway

import (
	"net/http"
	"strings"
	"testing"
)

func TestUnary(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	post := func(path, body string) request { return request{path: path, body: body} }
	p.same(t,
		post("/v3/kv/put", `{"key":"Zm9v","value":"YmFy"}`),
		post("/v3/kv/put", `{"key":"Zm9v","value":"YmF6","prev_kv":true}`),
		post("/v3/kv/put", `{"key":"Zm9v","value":"YmF6","prevKv":true}`),
		post("/v3/kv/put", `{"key":"","value":"YmF6"}`),
		post("/v3/kv/put", `{"key":"Zm9v","lease":"5"}`),
		post("/v3/kv/put", `{"key":"Zm9v","lease":5,"ignore_lease":true}`),
		post("/v3/kv/put", `{"key":"Zm9v","value":"YQ==","ignore_value":true}`),
		post("/v3/kv/range", `{"key":"Zm9v"}`),
		post("/v3/kv/range", `{"key":"Zg==","range_end":"Zw==","limit":1,"sort_order":"DESCEND","sort_target":"MOD"}`),
		post("/v3/kv/range", `{"key":"Zg==","range_end":"Zw==","sort_order":1,"sort_target":3}`),
		post("/v3/kv/range", `{"key":"Zg==","range_end":"Zw==","sort_order":77}`),
		post("/v3/kv/range", `{"key":"Zg==","range_end":"Zw==","sort_order":"SIDEWAYS"}`),
		post("/v3/kv/range", `{"key":"Zg==","range_end":"Zw==","keys_only":true}`),
		post("/v3/kv/range", `{"key":"Zg==","range_end":"Zw==","count_only":true}`),
		post("/v3/kv/range", `{"key":"Zm9v","revision":2}`),
		post("/v3/kv/range", `{"key":"Zm9v","revision":"99"}`),
		post("/v3/kv/range", `{"key":"Zm9v","revision":"-1"}`),
		post("/v3/kv/range", `{"key":"Zm9v","revision":1.5}`),
		post("/v3/kv/range", `{"key":"Zm9v","revision":"abc"}`),
		post("/v3/kv/range", `{"key":"Zm9v","revision":99999999999999999999}`),
		post("/v3/kv/range", `{"key":"Zm9v","nothing":{"a":[1,2]},"serializable":true}`),
		post("/v3/kv/range", `{"key":"Zm9v","key":"Zg=="}`),
		post("/v3/kv/range", `{"key":"not base64!"}`),
		post("/v3/kv/range", `{"key":"Zm9v","limit":null}`),
		post("/v3/kv/range", `{"key":5}`),
		post("/v3/kv/range", `{"key":`),
		post("/v3/kv/range", `[]`),
		post("/v3/kv/range", `null`),
		post("/v3/kv/range", `"text"`),
		post("/v3/kv/range", `{"key":"Zm9v"} {"key":`),
		post("/v3/kv/range", `{"key":"Zm9v"}`+strings.Repeat(" ", 100_000)),
		post("/v3/kv/range", ` `),
		post("/v3/kv/txn", `{"compare":[{"key":"Zm9v","target":"VERSION","result":"GREATER","version":"1"}],`+
			`"success":[{"request_range":{"key":"Zm9v"}},{"requestPut":{"key":"YQ==","value":"Yg=="}}],"failure":[{"request_delete_range":{"key":"Zm9v"}}]}`),
		post("/v3/kv/txn", `{"success":[{"request_range":{"key":"Zm9v"},"request_put":{"key":"YQ=="}}]}`),
		post("/v3/kv/txn", `{"success":[{}]}`),
		post("/v3/kv/txn", `{"success":[{"request_txn":{"success":[{"request_put":{"key":"YQ=="}}]}}]}`),
		post("/v3/kv/txn", `{}`),
		post("/v3/kv/deleterange", `{"key":"YQ==","prev_kv":true}`),
		post("/v3/kv/deleterange", `{"key":"YQ=="}`),
		post("/v3/kv/compaction", `{"revision":"3"}`),
		post("/v3/kv/compaction", `{"revision":"3"}`),
		post("/v3/kv/compaction", `{"revision":"300","physical":true}`),
		post("/v3/kv/range", `{"key":"Zm9v","revision":2}`),
		post("/v3/lease/grant", `{"TTL":"100","ID":"77"}`),
		post("/v3/lease/grant", `{"TTL":"100","ID":"77"}`),
		post("/v3/lease/grant", `{"TTL":"90000000000"}`),
		post("/v3/kv/put", `{"key":"bA==","lease":"77"}`),
		post("/v3/lease/timetolive", `{"ID":"77","keys":true}`),
		post("/v3/kv/lease/timetolive", `{"ID":"78","keys":true}`),
		post("/v3/lease/leases", `{}`),
		post("/v3/kv/lease/leases", ``),
		request{method: http.MethodPost, path: "/v3/lease/leases"},
		post("/v3/lease/revoke", `{"ID":"77"}`),
		post("/v3/kv/lease/revoke", `{"ID":"77"}`),
		post("/v3/maintenance/status", `{}`),
		post("/v3/maintenance/alarm", `{"action":"GET"}`),
		post("/v3/maintenance/alarm", `{"action":"ACTIVATE","memberID":"5","alarm":"CORRUPT"}`),
		post("/v3/maintenance/alarm", `{}`),
		post("/v3/kv/put", `{"key":"YQ=="}`),
		post("/v3/maintenance/alarm", `{"action":2,"memberID":"5","alarm":2}`),
		post("/v3/maintenance/hashkv", `{}`),
		post("/v3/maintenance/defragment", `{}`),
		post("/v3/maintenance/transfer-leadership", `{"targetID":"5"}`),
		post("/v3/auth/status", `{}`),
		post("/v3/auth/authenticate", `{"name":"root","password":"x"}`),
		post("/v3/cluster/member/remove", `{"ID":"5"}`),
		post("/v3/cluster/member/add", `{"peerURLs":["nothing"]}`),
		post("/v3/cluster/member/promote", `{"ID":"5"}`),
		post("/v3/cluster/member/update", `{"ID":"5"}`),
	)
}

func TestLockAndElection(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	post := func(path, body string) request { return request{path: path, body: body} }
	p.same(t,
		post("/v3/lease/grant", `{"TTL":"100","ID":"1"}`),
		post("/v3/lease/grant", `{"TTL":"100","ID":"255"}`),
		post("/v3/lock/lock", `{"name":"bA==","lease":"1"}`),
		post("/v3/lock/lock", `{"name":"bA==","lease":"1"}`),
		post("/v3/lock/lock", `{"name":"bA==","lease":"9"}`),
		post("/v3/lock/lock", `{"name":"","lease":"255"}`),
		post("/v3/lock/lock", `{"name":"bA==","lease":"-1"}`),
		post("/v3/lock/unlock", `{"key":"bC8x"}`),
		post("/v3/lock/unlock", `{"key":"bC8x"}`),
		post("/v3/lock/unlock", `{}`),
		post("/v3/election/leader", `{"name":"ZQ=="}`),
		post("/v3/election/campaign", `{"name":"ZQ==","lease":"255","value":"b25l"}`),
		post("/v3/election/campaign", `{"name":"ZQ==","lease":"255","value":"b25l"}`),
		post("/v3/election/campaign", `{"name":"ZQ==","lease":"255","value":"dHdv"}`),
		post("/v3/election/campaign", `{"name":"ZQ==","lease":"9","value":"b25l"}`),
		post("/v3/election/leader", `{"name":"ZQ=="}`),
		request{path: "/v3/election/observe", body: `{"name":"ZQ=="}`, lines: 1},
		post("/v3/election/proclaim", `{"leader":{"name":"ZQ==","key":"ZS9mZg==","rev":"6","lease":"255"},"value":"eA=="}`),
		post("/v3/election/proclaim", `{"leader":{"name":"ZQ==","key":"ZS9mZg==","rev":"5","lease":"255"},"value":"eA=="}`),
		post("/v3/election/proclaim", `{"leader":{"name":"ZQ==","rev":"5","lease":"255"},"value":"eA=="}`),
		post("/v3/election/proclaim", `{"value":"eA=="}`),
		post("/v3/election/leader", `{"name":"ZQ=="}`),
		post("/v3/election/resign", `{"leader":{"name":"ZQ==","key":"ZS9mZg==","rev":"99","lease":"255"}}`),
		post("/v3/election/resign", `{"leader":{"name":"ZQ==","key":"ZS9mZg==","rev":"6","lease":"255"}}`),
		post("/v3/election/resign", `{"leader":{"name":"ZQ==","key":"ZS9mZg==","rev":"6","lease":"255"}}`),
		post("/v3/election/resign", `{}`),
		post("/v3/election/leader", `{"name":"ZQ=="}`),
		post("/v3/kv/range", `{"key":"AA==","range_end":"AA=="}`),
	)
}

func TestPathsAndMethods(t *testing.T) {
	t.Parallel()
	p := startPair(t)
	for _, path := range []string{"/v3", "/v3/", "/v3/kv", "/v3/kv/put/", "/v3/kv/put/x", "//v3/kv/put", "/v3/KV/put", "/v3/kv/rangestream", "/v3beta", "/v3beta/", "/v3alpha/kv/put", "/v2/keys", "/v3/kv/put?a=b", "/v3/kv/pu%74", "/v3/kv%2Fput"} {
		p.same(t, request{path: path}, request{path: path, body: `{"key":"YQ=="}`})
	}
	for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "BREW"} {
		p.same(t, request{method: method, path: "/v3/kv/put", body: `{"key":"YQ=="}`})
	}
	for _, header := range []map[string]string{
		{"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "???"}, {"Content-Type": ""},
		{"Accept": "text/html"}, {"Accept": ""}, {"X-Http-Method-Override": "GET"}, {"Grpc-Timeout": "5S"}, {"Grpc-Timeout": "bad"},
		{"Grpc-Metadata-Hasleader": "true"}, {"Authorization": "anything"}, {"Expect": "100-continue"},
		{"Content-Type": "application/x-www-form-urlencoded", "X-Http-Method-Override": "GET"},
	} {
		p.same(t, request{path: "/v3beta/kv/put", body: `{"key":"YQ==","value":"Yg=="}`, header: header})
	}
}

func TestSwitchedOff(t *testing.T) {
	t.Parallel()
	p := startPair(t, "--enable-grpc-gateway=false")
	p.same(t, request{path: "/v3/kv/put", body: `{"key":"YQ=="}`}, request{path: "/v3/"}, request{path: "/health"})
}

// TestAdvertisedNameOfNobody: the server calls itself without a name, whatever it advertises.
func TestAdvertisedNameOfNobody(t *testing.T) {
	t.Parallel()
	p := startPair(t, "--advertise-client-urls", "http://nobody.invalid:1")
	p.same(t, request{path: "/v3/kv/put", body: `{"key":"YQ=="}`})
}
