package rpc

import (
	"encoding/json"
	"expvar"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"quire/rpc/gateway"
)

// ClientHandler serves the HTTP endpoints of the client port.
func (s *Server) ClientHandler() http.Handler {
	mux := http.NewServeMux()
	s.addMonitoring(mux)
	mux.HandleFunc("/version", s.httpVersion)
	s.addDebug(mux)
	if s.json != nil {
		mux.Handle(gateway.Root, s.json)
	}
	return mux
}

// MetricsHandler serves the endpoints of --listen-metrics-urls.
func (s *Server) MetricsHandler() http.Handler {
	mux := http.NewServeMux()
	s.addMonitoring(mux)
	return mux
}

func (s *Server) addMonitoring(mux *http.ServeMux) {
	mux.Handle("/metrics", promhttp.InstrumentMetricHandler(s.cfg.Registry,
		promhttp.HandlerFor(s.cfg.Registry, promhttp.HandlerOpts{})))
	mux.HandleFunc("/health", s.httpHealth)
	s.addProbes(mux)
}

// onlyGet answers other methods and reports whether it did not have to.
func onlyGet(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet {
		return true
	}
	w.Header().Set("Allow", http.MethodGet)
	http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
	return false
}

// ServeVersion and ServeHealth are for the peer port.
func (s *Server) ServeVersion(w http.ResponseWriter, r *http.Request) { s.httpVersion(w, r) }

// ServeHealth answers as /health.
func (s *Server) ServeHealth(w http.ResponseWriter, r *http.Request) { s.httpHealth(w, r) }

func (s *Server) httpVersion(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	writeJSON(w, struct {
		Server  string `json:"etcdserver"`
		Cluster string `json:"etcdcluster"`
		Storage string `json:"storage"`
	}{s.cfg.Version, orElse(s.cfg.Upkeep.ClusterVersion(), "not_decided"), orElse(s.cfg.Upkeep.StorageVersion(), "unknown")})
}

func orElse(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b)
}

// healthAnswer is the body of /health.
type healthAnswer struct {
	Health string `json:"health"`
	Reason string `json:"reason"`
}

func (s *Server) httpHealth(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	query := r.URL.Query()
	reason := s.unhealthy(r, query["exclude"], query.Get("serializable") == "true")
	if reason == "" {
		s.http.healthy.Add(1)
		writeJSON(w, healthAnswer{Health: "true"})
		return
	}
	s.http.unhealthy.Add(1)
	body, _ := json.Marshal(healthAnswer{Health: "false", Reason: reason})
	s.cfg.Logger.Warn("/health error", zap.String("output", string(body)), zap.Int("status-code", http.StatusServiceUnavailable))
	http.Error(w, string(body), http.StatusServiceUnavailable)
}

// unhealthy returns etcd's reason, or nothing: alarms first, then the leader,
// then whether a read works.
func (s *Server) unhealthy(r *http.Request, exclude []string, serializable bool) string {
	for _, a := range s.cfg.Space.Alarms() {
		if !slices.Contains(exclude, a.Alarm.String()) {
			return "ALARM " + a.Alarm.String()
		}
	}
	if !serializable && s.cfg.RaftStatus().Lead == 0 {
		return "RAFT NO LEADER"
	}
	if err := s.tryRead(r.Context(), serializable); err != nil {
		return fmt.Sprintf("RANGE ERROR:%s", err)
	}
	return ""
}

// httpVars serves the process's variables: those that Go publishes, and
// Config.Vars.
func (s *Server) httpVars(w http.ResponseWriter, r *http.Request) {
	if !onlyGet(w, r) {
		return
	}
	vars := map[string]string{}
	expvar.Do(func(kv expvar.KeyValue) { vars[kv.Key] = kv.Value.String() })
	for name, read := range s.cfg.Vars {
		b, err := json.Marshal(read())
		if err != nil {
			b = []byte("null")
		}
		vars[name] = string(b)
	}
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		lines = append(lines, fmt.Sprintf("%q: %s", name, vars[name]))
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	_, _ = fmt.Fprintf(w, "{\n%s\n}\n", strings.Join(lines, ",\n"))
}
