package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
)

// probe is one named check of /livez or /readyz.
type probe struct {
	name  string
	check func(ctx context.Context) error
}

// addProbes serves /livez (is this process worth keeping) and /readyz (should
// it get traffic) with a sub-path for each check, as etcd does. NOSPACE fails
// neither: reads still work.
func (s *Server) addProbes(mux *http.ServeMux) {
	stale := probe{"serializable_read", func(ctx context.Context) error { return s.tryRead(ctx, true) }}
	fresh := probe{"linearizable_read", func(ctx context.Context) error { return s.tryRead(ctx, false) }}
	for root, probes := range map[string][]probe{
		"/livez":  {stale},
		"/readyz": {{"data_corruption", s.checkCorruption}, stale, fresh, {"non_learner", s.checkNotLearner}},
	} {
		mux.HandleFunc(root, func(w http.ResponseWriter, r *http.Request) {
			excluded := r.URL.Query()["exclude"]
			s.probe(w, r, slices.DeleteFunc(slices.Clone(probes), func(p probe) bool { return slices.Contains(excluded, p.name) }))
		})
		for _, p := range probes {
			mux.HandleFunc(root+"/"+p.name, func(w http.ResponseWriter, r *http.Request) { s.probe(w, r, []probe{p}) })
		}
	}
}

// probe runs checks and answers: what failed, or "ok", with details if asked.
func (s *Server) probe(w http.ResponseWriter, r *http.Request, probes []probe) {
	if !onlyGet(w, r) {
		return
	}
	var details strings.Builder
	failed := false
	for _, p := range probes {
		if err := p.check(r.Context()); err != nil {
			failed = true
			fmt.Fprintf(&details, "[-]%s failed: %v\n", p.name, err)
		} else {
			fmt.Fprintf(&details, "[+]%s ok\n", p.name)
		}
	}
	if failed {
		s.cfg.Logger.Warn("Health check error", zap.String("path", r.URL.Path), zap.String("reason", details.String()))
		http.Error(w, details.String(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !r.URL.Query().Has("verbose") {
		details.Reset()
	}
	_, _ = fmt.Fprint(w, details.String(), "ok\n")
}

// tryRead reads as a client with all rights would.
func (s *Server) tryRead(ctx context.Context, serializable bool) error {
	// A key of one zero byte is the smallest; etcd reads the empty one, which
	// only the inside of a server may.
	q := pb.RangeRequest{Key: []byte{0}, KeysOnly: true, Limit: 1, Serializable: serializable}
	req, err := q.MarshalVT()
	if err != nil {
		return err
	}
	_, err = s.invoke(ctx, rangeFullName, req, true)
	return err
}

func (s *Server) checkCorruption(context.Context) error {
	if s.cfg.Space.HasAlarm(pb.AlarmType_CORRUPT) {
		return errors.New("alarm activated: CORRUPT")
	}
	return nil
}

func (s *Server) checkNotLearner(context.Context) error {
	if s.cfg.RaftStatus().IsLearner {
		return errors.New("not supported for learner")
	}
	return nil
}
