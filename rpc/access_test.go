package rpc

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAccess(t *testing.T) {
	named := &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: "alice"}}}}}
	for _, tc := range []struct {
		name   string
		access Access
		change func(*http.Request)
		status int
		body   string // a part of it
		origin string // what Access-Control-Allow-Origin says
	}{
		{"everyone", Access{}, nil, 200, "served /v3/kv/put", "*"},
		{"stars", Access{Origins: []string{"*"}, Hosts: []string{"*"}}, nil, 200, "served", "*"},
		{"old path", Access{}, func(r *http.Request) { r.URL.Path = "/v3beta/kv/range" }, 200, "served /v3/kv/range", "*"},
		{"known host", Access{Hosts: []string{"a", "example.com"}}, nil, 200, "served", "*"},
		{"unknown host", Access{Hosts: []string{"a"}}, nil, 421, `e.g. etcd --host-whitelist "example.com"`, ""},
		{"unknown host, secure", Access{Hosts: []string{"a"}}, func(r *http.Request) { r.TLS = named }, 200, "served", "*"},
		{"host with a port", Access{Hosts: []string{"h"}}, func(r *http.Request) { r.Host = "h:1" }, 200, "served", "*"},
		{"known origin", Access{Origins: []string{"http://a:1"}}, func(r *http.Request) { r.Header.Set("Origin", "http://a:1") }, 200, "served", "http://a:1"},
		{"unknown origin", Access{Origins: []string{"http://a:1"}}, func(r *http.Request) { r.Header.Set("Origin", "http://b:1") }, 200, "served", ""},
		{"preflight", Access{}, func(r *http.Request) { r.Method = "OPTIONS" }, 200, "", "*"},
		{"named client", Access{RefuseNamed: func() bool { return true }}, func(r *http.Request) { r.TLS = named }, 400, "CommonName of client sending a request", ""},
		{"named client, no auth", Access{RefuseNamed: func() bool { return false }}, func(r *http.Request) { r.TLS = named }, 200, "served", "*"},
		{"named client, no gateway", Access{RefuseNamed: func() bool { return true }},
			func(r *http.Request) { r.TLS, r.URL.Path = named, "/health" }, 200, "served", "*"},
		{"nameless client", Access{RefuseNamed: func() bool { return true }}, func(r *http.Request) { r.TLS = &tls.ConnectionState{} }, 200, "served", "*"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodPost, "http://example.com/v3/kv/put", nil)
			if tc.change != nil {
				tc.change(r)
			}
			w := httptest.NewRecorder()
			tc.access.Wrap(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = w.Write([]byte("served " + r.URL.Path))
			})).ServeHTTP(w, r)
			if w.Code != tc.status || !strings.Contains(w.Body.String(), tc.body) || tc.body == "" && w.Body.Len() > 0 {
				t.Errorf("%d %q", w.Code, w.Body)
			}
			if got := w.Header().Get("Access-Control-Allow-Origin"); got != tc.origin {
				t.Errorf("origin %q, want %q", got, tc.origin)
			}
			methods := w.Header().Get("Access-Control-Allow-Methods")
			if (methods == "POST, GET, OPTIONS, PUT, DELETE") != (tc.origin != "") {
				t.Errorf("methods %q", methods)
			}
		})
	}
}
