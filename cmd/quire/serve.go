package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// stopWait bounds an orderly stop: whoever starts servers in numbers waits for
// each, and gives up after a second and a half.
const stopWait = time.Second

// server is one running process: its sockets, its member, and what ends it.
//
// Start: sockets are opened first, so that a port in use costs nothing; then
// the member recovers; when it has a leader and is known to the cluster,
// clients are served. Stop: the same backwards.
type server struct {
	cfg    *Config
	log    *zap.Logger
	reg    *prometheus.Registry
	member *member

	ports *ports
}

// serve runs a server until a signal or a fault ends it; it returns the
// process's exit code.
func serve(cfg *Config, set *flagSet, args []string) int {
	l, err := openLogs(cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer l.Close()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	announce(l.Logger, cfg, set, args)
	s := &server{cfg: cfg, log: l.Logger, reg: newRegistry(l.sink)}
	s.ports = newPorts(cfg, l.Logger)
	code := 0
	if err := s.run(signals); err != nil {
		l.Error("quire ends", zap.Error(err))
		code = 1
	}
	return code
}

// announce logs what the sources said and every setting.
func announce(log *zap.Logger, cfg *Config, set *flagSet, args []string) {
	log.Info("Running: ", zap.Strings("args", maskArgs(args)))
	if cfg.ConfigFile != "" {
		log.Info("loaded server configuration, other configuration command line flags and environment variables will be ignored if provided",
			zap.String("path", cfg.ConfigFile))
	}
	for _, v := range set.env {
		if v.used {
			log.Info("recognized and used environment variable", zap.String("variable-name", v.key), zap.String("variable-value", v.value))
		} else { // its value may be a secret of somebody else's
			log.Warn("unrecognized environment variable", zap.String("environment-variable", v.key))
		}
	}
	if len(set.ignored) > 0 {
		log.Warn("flags without effect in this version", zap.Strings("flags", set.ignored))
	}
	if cfg.set["max-snapshots"] {
		log.Warn("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.")
	}
	if cfg.set["v2-deprecation"] {
		log.Warn("--v2-deprecation is deprecated and scheduled for removal in v3.8. The default value is enforced, ignoring user input.")
	}
	if cfg.MaxRequestBytes > recommendedRequestBytes {
		log.Warn("exceeded recommended request limit", zap.Uint("max-request-bytes", cfg.MaxRequestBytes), zap.Int("recommended-request-bytes", recommendedRequestBytes))
	}
	if cfg.Name == defaultName {
		log.Warn("--name is not set; members of one cluster need names of their own", zap.String("name", cfg.Name))
	}
	if !cfg.set["data-dir"] {
		log.Warn("'data-dir' was empty; using default", zap.String("data-dir", cfg.DataDir))
	}
	if cfg.QuotaBackendBytes > maxQuotaBytes {
		log.Warn("quota exceeds the maximum value", zap.Int64("quota-size-bytes", cfg.QuotaBackendBytes), zap.Int64("quota-maximum-size-bytes", maxQuotaBytes))
	}
	fields := []zap.Field{
		zap.String("etcd-version", apiVersion), zap.String("quire-version", version), zap.String("git-sha", gitCommit()),
		zap.String("go-version", runtime.Version()), zap.String("go-os", runtime.GOOS), zap.String("go-arch", runtime.GOARCH),
		zap.Int("max-cpu-set", runtime.GOMAXPROCS(0)), zap.Int("max-cpu-available", runtime.NumCPU()),
		zap.Bool("member-initialized", cfg.initialised()),
	}
	log.Info("starting an etcd server", append(fields, set.settings()...)...)
}

// run starts the server, waits and stops it.
func (s *server) run(signals <-chan os.Signal) (err error) {
	defer func() { err = errors.Join(err, s.stop()) }()
	defer tuneGC().stop()
	if err := s.ports.open(s.reg); err != nil {
		return err
	}
	if s.member, err = openMember(s.cfg, s.log, s.reg); err != nil {
		return err
	}
	s.log.Info("starting etcd server", zap.String("local-member-id", fmt.Sprintf("%x", s.member.id)),
		zap.String("cluster-id", fmt.Sprintf("%x", s.member.cid)), zap.String("local-server-version", apiVersion))
	// Whoever watches the member is answered before it has a leader.
	s.ports.servePeers()
	s.ports.serveMetrics(s.member.rpc)
	if done, err := s.awaitReady(signals); done || err != nil {
		return err
	}
	s.ports.serveClients(s.member.rpc)
	stopCompactor := s.startCompactor()
	defer stopCompactor()
	if err := notifyInit("READY=1"); err != nil {
		s.log.Warn("cannot notify the init system", zap.Error(err))
	}
	select {
	case sig := <-signals:
		s.log.Info("received signal; shutting down", zap.String("signal", sig.String()))
		return nil
	case err := <-s.member.fatal:
		s.member.die(err)
		return err
	case err := <-s.ports.failed:
		return err
	}
}

// startCompactor starts auto-compaction; the returned function ends it.
func (s *server) startCompactor() (stop func()) {
	keep, err := parseRetention(s.cfg.CompactionMode, s.cfg.CompactionRetention)
	if err != nil {
		s.log.Error("auto compaction is off", zap.Error(err)) // Validate saw to it
	}
	m := s.member
	c := &compactor{
		keep: keep, log: s.log, revision: m.engine.Revision,
		leads:   func() bool { return m.raftStatus().IsLeader },
		compact: m.rpc.Compact,
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// awaitReady waits for a leader; done means that a signal came first.
func (s *server) awaitReady(signals <-chan os.Signal) (done bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- s.member.awaitReady(ctx) }()
	select {
	case err := <-ready:
		return false, err
	case sig := <-signals:
		s.log.Info("received signal; shutting down", zap.String("signal", sig.String()))
		cancel()
		<-ready
		return true, nil
	}
}

// stop ends everything that was started, top down, within stopWait and what
// the last checkpoint takes.
func (s *server) stop() error {
	_ = notifyInit("STOPPING=1")
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	s.ports.close()
	if s.member == nil {
		return nil
	}
	s.log.Info("closing etcd server", zap.String("name", s.cfg.Name), zap.String("data-dir", s.cfg.DataDir))
	err := s.member.close(ctx)
	s.log.Info("closed etcd server", zap.String("name", s.cfg.Name), zap.String("data-dir", filepath.Clean(s.cfg.DataDir)))
	return err
}
