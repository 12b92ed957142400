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
	"google.golang.org/grpc"
)

// stopWait bounds an orderly stop: whoever starts servers in numbers waits for
// each, and gives up after a second and a half.
const stopWait = time.Second

// mutexProfileFraction is etcd's: one of so many waits for a mutex is sampled.
const mutexProfileFraction = 5

// server is one running process: its sockets, its member, and what ends it.
//
// Start: sockets are opened first, so that a port in use costs nothing; then
// the member recovers; when it has a leader and is known to the cluster,
// clients are served. Stop: the same backwards.
type server struct {
	cfg    *Config
	log    *zap.Logger
	see    observation
	reg    *prometheus.Registry
	member *member
	ports  *ports
	ended  os.Signal // what ended it, if a signal did
}

// serve runs a server until a signal or a fault ends it; it returns the
// process's exit code.
func serve(cfg *Config, set *flagSet, args []string) int {
	os.Args = maskArgs(os.Args) // /debug/vars and /debug/pprof/cmdline show them
	l, err := openLogs(cfg)
	if err != nil {
		newFaultLog(os.Stderr).Warn("failed to verify flags", zap.Error(err))
		return exitFault
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	stopLevel := l.level.followSignals()
	announce(l.Logger, cfg, set, args)
	s := &server{cfg: cfg, log: l.Logger, see: observation{level: l.level}, reg: newRegistry(l.sink), ports: newPorts(cfg, l.Logger)}
	err = s.run(signals)
	if err != nil {
		l.Error("quire ends", zap.Error(err))
	}
	stopLevel()
	l.Close()
	if errors.Is(err, errStoreDamaged) && s.ended == nil {
		fmt.Fprintln(os.Stderr, startAgain(args, os.Environ()))
	}
	if err != nil {
		return exitFault
	}
	return endBy(s.ended)
}

// endBy ends the process by the signal that stopped it, as etcd does, so that
// whoever waits for it sees why it ended. The first process of a container cannot
// be killed so; it exits with 0.
func endBy(sig os.Signal) int {
	number, ok := sig.(syscall.Signal)
	if !ok || os.Getpid() == 1 {
		return 0
	}
	signal.Reset(number)
	_ = syscall.Kill(os.Getpid(), number)
	time.Sleep(time.Second) // the signal comes at once, if it comes
	return 0
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
	if err := s.prepare(); err != nil {
		return err
	}
	s.ports.servePeers()
	if done, err := s.openMember(signals); done || err != nil {
		return s.outcome(err)
	}
	s.log.Info("starting etcd server", zap.String("local-member-id", fmt.Sprintf("%x", s.member.id)),
		zap.String("cluster-id", fmt.Sprintf("%x", s.member.cid)), zap.String("local-server-version", apiVersion))
	// Whoever watches the member is answered before it has a leader.
	s.ports.serveMetrics(s.member.rpc)
	if done, err := s.awaitReady(signals); done || err != nil {
		return s.outcome(err)
	}
	s.ports.serveClients(s.member.rpc)
	stopCompactor := s.startCompactor()
	defer stopCompactor()
	stopVersions := background(s.member.membership.Watch)
	defer stopVersions()
	stopChecks := background(s.member.checks.run)
	defer stopChecks()
	s.log.Info("notifying init daemon")
	if err := notifyInit("READY=1"); err != nil {
		s.log.Warn("failed to notify systemd for readiness", zap.Error(err))
	} else {
		s.log.Info("successfully notified init daemon")
	}
	select {
	case sig := <-signals:
		s.signalled(sig)
		return nil
	case err := <-s.member.fatal:
		s.member.die(err)
		return s.outcome(err)
	case err := <-s.ports.failed:
		return err
	}
}

// outcome makes the removal of this member from its cluster an orderly end.
func (s *server) outcome(err error) error {
	if !errors.Is(err, errMemberRemoved) {
		return err
	}
	logRemoval(s.log)
	<-s.member.fatal // so that the store is closed in order
	return nil
}

// prepare does what needs no data: the process's own settings and the sockets.
func (s *server) prepare() (err error) {
	if s.cfg.LockMemory {
		lockMemory(s.log)
	}
	if s.cfg.EnablePprof || s.cfg.debugging() {
		s.log.Info("pprof is enabled", zap.String("path", "/debug/pprof"))
		runtime.SetMutexProfileFraction(mutexProfileFraction)
	}
	grpc.EnableTracing = s.cfg.debugging()
	if err := s.cfg.Features.register(s.reg); err != nil {
		return err
	}
	if s.see.tracing, err = openTracing(s.cfg, s.log); err != nil {
		return err
	}
	return s.ports.open(s.reg)
}

func (s *server) signalled(sig os.Signal) {
	s.ended = sig
	s.log.Info("received signal; shutting down", zap.String("signal", sig.String()))
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
	return background(c.run)
}

// background starts run on a goroutine; the returned function ends it.
func background(run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// every calls do again and again, until ctx ends.
func every(ctx context.Context, interval time.Duration, do func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			do()
		}
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
		s.signalled(sig)
		cancel()
		<-ready
		return true, nil
	}
}

// openMember opens the member and lets its peers in; done means that a signal
// came first.
func (s *server) openMember(signals <-chan os.Signal) (done bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	opened := make(chan error, 1)
	var m *member
	isNew := !s.cfg.initialised() // it has nothing to compare
	go func() {
		var err error
		m, err = openMember(ctx, s.cfg, surroundings{log: s.log, reg: s.reg, see: s.see, peerTLS: s.ports.tls.dialPeers()})
		if err == nil && !isNew {
			if err = m.checks.initial(ctx); err != nil {
				err = errors.Join(err, m.close(context.Background()))
			}
		}
		opened <- err
	}()
	select {
	case err = <-opened:
	case sig := <-signals:
		s.signalled(sig)
		cancel()
		done = true
		err = <-opened
	}
	if err != nil { // the member has closed itself
		if done {
			err = nil
		}
		return done, err
	}
	s.member = m
	s.ports.letPeersIn(m)
	return done, nil
}

// stop ends everything that was started, top down, within stopWait and what
// the last checkpoint takes.
func (s *server) stop() error {
	_ = notifyInit("STOPPING=1")
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	s.ports.close()
	defer func() {
		if err := s.see.tracing.close(); err != nil {
			s.log.Warn("cannot send the last traces", zap.Error(err))
		}
	}()
	if s.member == nil {
		return nil
	}
	s.log.Info("closing etcd server", zap.String("name", s.cfg.Name), zap.String("data-dir", s.cfg.DataDir))
	err := s.closeMember(ctx)
	s.log.Info("closed etcd server", zap.String("name", s.cfg.Name), zap.String("data-dir", filepath.Clean(s.cfg.DataDir)))
	return err
}

// closeMember closes the member, but does not wait for a disk that does not
// answer: the process ends without it, as after a kill.
func (s *server) closeMember(ctx context.Context) error {
	limit := orderlyStop
	if len(s.member.fatal) > 0 {
		limit = fatalStop
	}
	closed := make(chan error, 1)
	go func() { closed <- s.member.close(ctx) }()
	select {
	case err := <-closed:
		return err
	case <-time.After(limit):
		return fmt.Errorf("the member cannot be closed within %v; the process ends without that", limit)
	}
}
