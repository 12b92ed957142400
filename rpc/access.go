package rpc

import (
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"
)

// Access decides which HTTP requests of the client port are served at all. It
// answers as etcd does; gRPC clients do not come by here.
type Access struct {
	// Origins are the origins whose pages may read answers; empty or "*": all.
	Origins []string
	// Hosts are the names by which a client without TLS may call this server;
	// empty or "*": all. It keeps a page that has its own name resolve to this
	// server (DNS rebinding, CVE-2018-5702) from using it.
	Hosts []string
	// RefuseNamed tells whether requests to the gateway whose client certificate
	// has a common name are refused, because they would not be served in that name.
	RefuseNamed func() bool
	Logger      *zap.Logger
}

// Access returns the checks for this server.
func (s *Server) Access(origins, hosts []string) Access {
	return Access{Origins: origins, Hosts: hosts, Logger: s.cfg.Logger, RefuseNamed: func() bool {
		return s.cfg.ClientCertAuth && s.cfg.Gateway && s.cfg.Auth.Enabled()
	}}
}

// Wrap puts the checks in front of h.
func (a Access) Wrap(h http.Handler) http.Handler {
	if a.Logger == nil {
		a.Logger = zap.NewNop()
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok { // etcd's name for it before 3.4
			r.URL.Path = "/v3/" + rest
		}
		if !a.admits(w, r) {
			return
		}
		a.allowOrigin(w, r)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusOK)
			return
		}
		h.ServeHTTP(w, r)
	})
}

func all(list []string) bool { return len(list) == 0 || slices.Contains(list, "*") }

// admits answers a request that it refuses.
func (a Access) admits(w http.ResponseWriter, r *http.Request) bool {
	if r.TLS == nil {
		host := hostname(r)
		if all(a.Hosts) || slices.Contains(a.Hosts, host) {
			return true
		}
		a.Logger.Warn("rejecting HTTP request to prevent DNS rebinding attacks", zap.String("host", host))
		http.Error(w, unknownHost(host), http.StatusMisdirectedRequest)
		return false
	}
	if a.RefuseNamed == nil || !strings.HasPrefix(r.URL.Path, "/v3/") || !a.RefuseNamed() {
		return true
	}
	for _, chain := range r.TLS.VerifiedChains {
		if len(chain) > 0 && chain[0].Subject.CommonName != "" {
			http.Error(w, "CommonName of client sending a request against gateway will be ignored and not used as expected", http.StatusBadRequest)
			return false
		}
	}
	return true
}

func hostname(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		return r.Host
	}
	return host
}

// unknownHost is the page that tells an operator what to do.
func unknownHost(host string) string {
	return fmt.Sprintf(`
etcd received your request, but the Host header was unrecognized.

To fix this, choose one of the following options:
- Enable TLS, then any HTTPS request will be allowed.
- Add the hostname you want to use to the whitelist in settings.
  - e.g. etcd --host-whitelist %q

This requirement has been added to help prevent "DNS Rebinding" attacks (CVE-2018-5702).
`, host)
}

func (a Access) allowOrigin(w http.ResponseWriter, r *http.Request) {
	origin := "*"
	if !all(a.Origins) {
		if origin = r.Header.Get("Origin"); !slices.Contains(a.Origins, origin) {
			return
		}
	}
	w.Header().Add("Access-Control-Allow-Methods", "POST, GET, OPTIONS, PUT, DELETE")
	w.Header().Add("Access-Control-Allow-Origin", origin)
	w.Header().Add("Access-Control-Allow-Headers", "accept, content-type, authorization")
}
