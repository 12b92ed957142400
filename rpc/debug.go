package rpc

import (
	"net/http"
	"net/http/pprof"

	"golang.org/x/net/trace"
)

// addDebug serves what looks into the process. It tells a stranger what clients
// ask for, so it is served only when asked for.
func (s *Server) addDebug(mux *http.ServeMux) {
	mux.HandleFunc("/debug/vars", s.httpVars)
	if s.cfg.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	if s.cfg.Traces {
		mux.HandleFunc("/debug/requests", func(w http.ResponseWriter, r *http.Request) { trace.Render(w, r, true) })
		mux.HandleFunc("/debug/events", func(w http.ResponseWriter, r *http.Request) { trace.RenderEvents(w, r, true) })
	}
	if s.cfg.LogLevel != nil {
		mux.Handle("/debug/loglevel", s.cfg.LogLevel)
	}
}
