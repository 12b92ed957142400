package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"

	pb "quire/api/etcdserverpb"
	"quire/engine"
)

// probe is one named check of /livez or /readyz, and how it went so far.
type probe struct {
	root, name string
	check      func(ctx context.Context) error

	good, bad atomic.Uint64
	healthy   atomic.Bool // the last time
}

// run makes the check.
func (p *probe) run(ctx context.Context) error {
	err := p.check(ctx)
	p.healthy.Store(err == nil)
	if err == nil {
		p.good.Add(1)
	} else {
		p.bad.Add(1)
	}
	return err
}

// makeProbes returns the checks behind /livez (is this process worth keeping) and
// /readyz (should it get traffic), as etcd has them, and one more: log_write
// fails while the log's disk stalls. NOSPACE fails neither: reads still work.
func (s *Server) makeProbes() []*probe {
	stale := func(ctx context.Context) error { return s.tryRead(ctx, true) }
	fresh := func(ctx context.Context) error { return s.tryRead(ctx, false) }
	probes := []*probe{
		{root: "/livez", name: "serializable_read", check: stale},
		{root: "/readyz", name: "data_corruption", check: s.checkCorruption},
		{root: "/readyz", name: "serializable_read", check: stale},
		{root: "/readyz", name: "linearizable_read", check: fresh},
		{root: "/readyz", name: "non_learner", check: s.checkNotLearner},
	}
	if stall := s.cfg.LogStall; stall != nil {
		probes = append(probes, &probe{root: "/readyz", name: "log_write", check: func(context.Context) error { return stall() }})
	}
	return probes
}

// addProbes serves the checks, each under a sub-path too.
func (s *Server) addProbes(mux *http.ServeMux) {
	for _, root := range []string{"/livez", "/readyz"} {
		mux.HandleFunc(root, func(w http.ResponseWriter, r *http.Request) {
			excluded := r.URL.Query()["exclude"]
			s.probe(w, r, slices.DeleteFunc(slices.Clone(s.probes), func(p *probe) bool {
				return p.root != root || slices.Contains(excluded, p.name)
			}))
		})
	}
	for _, p := range s.probes {
		mux.HandleFunc(p.root+"/"+p.name, func(w http.ResponseWriter, r *http.Request) { s.probe(w, r, []*probe{p}) })
	}
}

// probe runs checks and answers: what failed, or "ok", with details if asked.
func (s *Server) probe(w http.ResponseWriter, r *http.Request, probes []*probe) {
	if !onlyGet(w, r) {
		return
	}
	var details strings.Builder
	failed := false
	for _, p := range probes {
		if err := p.run(r.Context()); err != nil {
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

// tryRead reads as a client with all rights would. A member that refuses reads
// because it is divergent can read: that it is not to be asked is said by its
// alarm, and whoever supervises it must not restart it for ever, which mends
// nothing.
func (s *Server) tryRead(ctx context.Context, serializable bool) error {
	// A key of one zero byte is the smallest; etcd reads the empty one, which
	// only the inside of a server may.
	q := pb.RangeRequest{Key: []byte{0}, KeysOnly: true, Limit: 1, Serializable: serializable}
	req, err := q.MarshalVT()
	if err != nil {
		return err
	}
	_, err = s.invoke(ctx, rangeFullName, req, true)
	var st *Status
	if errors.As(err, &st) && st == StatusOf(engine.ErrCorrupt) {
		return nil
	}
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
