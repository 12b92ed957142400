package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"quire/raft/peer"
	"quire/rpc"
)

// stopWait bounds an orderly stop: whoever starts servers in numbers waits for
// each, and gives up after a second and a half.
const stopWait = time.Second

// httpHeaderWait is how long a client may take to send a request's header.
const httpHeaderWait = 5 * time.Minute

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

	peers, clients, httpOnly, metrics *listeners
	fronts                            []*rpc.Frontend
	https                             []*http.Server
	door                              *peer.Listener
	peerHTTP                          *peerHTTP
	failed                            chan error // a listener broke
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
	s := &server{cfg: cfg, log: l.Logger, reg: newRegistry(l.sink), failed: make(chan error, 1)}
	code := 0
	if err := s.run(signals); err != nil {
		l.Error("quire ends", zap.Error(err))
		code = 1
	}
	return code
}

// announce logs what the sources said and every setting.
func announce(log *zap.Logger, cfg *Config, set *flagSet, args []string) {
	log.Info("Running: ", zap.Strings("args", args))
	if cfg.ConfigFile != "" {
		log.Info("settings come from the configuration file alone; flags and environment are ignored",
			zap.String("path", cfg.ConfigFile))
	}
	for _, w := range set.envWarnings {
		log.Warn(w.msg, zap.String("environment-variable", w.key))
	}
	if len(set.ignored) > 0 {
		log.Warn("flags without effect in this version", zap.Strings("flags", set.ignored))
	}
	if cfg.set["max-snapshots"] {
		log.Warn("--max-snapshots is deprecated in 3.6 and will be decommissioned in 3.8.")
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
	if err := s.listen(); err != nil {
		return err
	}
	s.servePeers()
	if done, err := s.openMember(signals); done || err != nil {
		return s.outcome(err)
	}
	s.log.Info("starting etcd server", zap.String("local-member-id", fmt.Sprintf("%x", s.member.id)),
		zap.String("cluster-id", fmt.Sprintf("%x", s.member.cid)), zap.String("local-server-version", apiVersion))
	if done, err := s.awaitReady(signals); done || err != nil {
		return s.outcome(err)
	}
	s.serveAll()
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
		return s.outcome(err)
	case err := <-s.failed:
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

// listen opens every socket, or none and says which flag is at fault.
func (s *server) listen() (err error) {
	for _, l := range []struct {
		to   **listeners
		flag string
		urls urlList
	}{
		{&s.peers, "listen-peer-urls", s.cfg.ListenPeerURLs},
		{&s.clients, "listen-client-urls", s.cfg.ListenClientURLs},
		{&s.httpOnly, "listen-client-http-urls", s.cfg.ListenClientHTTP},
		{&s.metrics, "listen-metrics-urls", s.cfg.ListenMetricsURLs},
	} {
		if *l.to, err = listenAll(l.flag, l.urls, s.cfg); err != nil {
			return err
		}
	}
	return nil
}

// serveAll serves clients, and says so in the words that scripts wait for.
func (s *server) serveAll() {
	r := s.member.rpc
	s.log.Info("ready to serve client requests")
	traffic := "grpc+http"
	if len(s.httpOnly.open) > 0 {
		traffic = "grpc"
	}
	for _, lis := range s.clients.open {
		if traffic == "grpc" {
			s.start(s.clients, func() error { return r.ServeGRPC(lis) })
		} else {
			front := rpc.NewFrontend(lis)
			s.fronts = append(s.fronts, front)
			s.start(s.clients, func() error { return r.ServeGRPC(front.GRPC()) })
			s.serveHTTP(s.clients, front.HTTP(), r.ClientHandler())
		}
		s.sayServing(traffic, lis)
	}
	for _, lis := range s.httpOnly.open {
		s.serveHTTP(s.httpOnly, lis, r.ClientHandler())
		s.sayServing("http", lis)
	}
	for _, lis := range s.metrics.open {
		s.serveHTTP(s.metrics, lis, r.MetricsHandler())
		s.log.Info("serving metrics", zap.String("address", lis.Addr().String()))
	}
}

// servePeers serves the peer port from the very start: the others can ask
// whether this member is one before it knows.
func (s *server) servePeers() {
	s.door, s.peerHTTP = peer.NewListener(s.log), &peerHTTP{log: s.log}
	s.serveHTTP(s.peers, s.door.HTTP(), s.peerHTTP.handler())
	for _, lis := range s.peers.open {
		s.start(s.peers, func() error { return s.door.Serve(lis) })
		s.log.Info("serving peer traffic", zap.String("address", lis.Addr().String()))
	}
}

// openMember opens the member and lets its peers in; done means that a signal
// came first.
func (s *server) openMember(signals <-chan os.Signal) (done bool, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	opened := make(chan error, 1)
	go func() {
		var err error
		s.member, err = openMember(ctx, s.cfg, s.log, s.reg)
		opened <- err
	}()
	select {
	case err = <-opened:
	case sig := <-signals:
		s.log.Info("received signal; shutting down", zap.String("signal", sig.String()))
		cancel()
		done = true
		err = <-opened
	}
	if err != nil {
		s.member = nil // it has closed itself
		if done {
			err = nil
		}
		return done, err
	}
	s.peerHTTP.member.Store(s.member)
	s.door.Attach(s.member.transport)
	return done, nil
}

func (s *server) sayServing(traffic string, lis net.Listener) {
	s.log.Info("serving client traffic insecurely; this is strongly discouraged!",
		zap.String("traffic", traffic), zap.String("address", lis.Addr().String()))
}

// start runs what serves a listener; the first one that breaks ends the server.
func (s *server) start(of *listeners, do func() error) {
	go func() {
		err := do()
		if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
			return
		}
		select {
		case s.failed <- fmt.Errorf("--%s: %w", of.flag, err):
		default:
		}
	}()
}

func (s *server) serveHTTP(of *listeners, lis net.Listener, h http.Handler) {
	hs := &http.Server{Handler: h, ReadHeaderTimeout: httpHeaderWait, ErrorLog: stdlog.New(io.Discard, "", 0)}
	s.https = append(s.https, hs)
	s.start(of, func() error { return hs.Serve(lis) })
}

// stop ends everything that was started, top down, within stopWait and what
// the last checkpoint takes.
func (s *server) stop() error {
	_ = notifyInit("STOPPING=1")
	ctx, cancel := context.WithTimeout(context.Background(), stopWait)
	defer cancel()
	for _, l := range []*listeners{s.clients, s.httpOnly, s.metrics, s.peers} {
		if l != nil {
			l.close()
		}
	}
	for _, f := range s.fronts {
		_ = f.Close()
	}
	for _, h := range s.https {
		_ = h.Close()
	}
	if s.door != nil {
		s.door.Close()
	}
	if s.member == nil {
		return nil
	}
	s.log.Info("closing etcd server", zap.String("name", s.cfg.Name), zap.String("data-dir", s.cfg.DataDir))
	err := s.member.close(ctx)
	s.log.Info("closed etcd server", zap.String("name", s.cfg.Name), zap.String("data-dir", filepath.Clean(s.cfg.DataDir)))
	return err
}
