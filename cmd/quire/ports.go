package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"golang.org/x/net/http2"

	"quire/cmd/quire/certs"
	"quire/raft/peer"
	"quire/rpc"
)

// httpHeaderWait is how long a client may take to send a request's header. etcd
// waits five minutes, which lets a client hold a connection for nothing.
const httpHeaderWait = 10 * time.Second

// ports are the server's sockets and what serves them.
type ports struct {
	cfg *Config
	log *zap.Logger
	tls *security

	peers, clients, httpOnly, metrics *listeners

	door     *peer.Listener
	peerHTTP *peerHTTP

	fronts []*rpc.Frontend
	https  []*http.Server
	failed chan error // the first listener that broke
}

func newPorts(cfg *Config, log *zap.Logger) *ports {
	return &ports{cfg: cfg, log: log, failed: make(chan error, 1)}
}

// open reads the certificates and opens every socket, or says which setting is
// at fault. What it has opened is close's to close.
func (p *ports) open(reg prometheus.Registerer) (err error) {
	if p.tls, err = openSecurity(p.cfg, p.log, reg); err != nil {
		return err
	}
	p.tls.warnPlain(p.cfg, p.log)
	for _, l := range []struct {
		to   **listeners
		flag string
		urls urlList
	}{
		{&p.peers, "listen-peer-urls", p.cfg.ListenPeerURLs},
		{&p.clients, "listen-client-urls", p.cfg.ListenClientURLs},
		{&p.httpOnly, "listen-client-http-urls", p.cfg.ListenClientHTTP},
		{&p.metrics, "listen-metrics-urls", p.cfg.ListenMetricsURLs},
	} {
		if *l.to, err = listenAll(l.flag, l.urls, p.cfg, p.log); err != nil {
			return err
		}
	}
	return nil
}

// servePeers serves the peer port from the very start: the others can ask
// whether this member is one before it knows.
func (p *ports) servePeers() {
	p.door, p.peerHTTP = peer.NewListener(p.log), &peerHTTP{log: p.log}
	hs := p.newHTTPServer(p.peerHTTP.handler())
	p.start(p.peers, func() error { return hs.Serve(p.door.HTTP()) })
	for _, e := range p.peers.open {
		var lis net.Listener = e
		var handshake func(net.Conn) (net.Conn, error)
		switch {
		case e.secure && !e.plain:
			lis = p.tls.peers.Listener(e, true)
		case e.secure:
			handshake = func(conn net.Conn) (net.Conn, error) { return p.tls.peers.Handshake(conn, true) }
		}
		p.start(p.peers, func() error { return p.door.Serve(lis, handshake) })
		p.log.Info("serving peer traffic", zap.String("address", e.Addr().String()))
	}
}

// letPeersIn opens the door to the peers of a member that is ready for them.
func (p *ports) letPeersIn(m *member) {
	p.peerHTTP.member.Store(m)
	p.door.Attach(m.transport)
}

// serveMetrics answers whoever watches the server. Like etcd it wants a client's
// certificate to name the address that it comes from.
func (p *ports) serveMetrics(r *rpc.Server) {
	for _, e := range p.metrics.open {
		p.serveHTTP(p.metrics, e, p.tls.clients, r.MetricsHandler(), true)
		p.log.Info("serving metrics", zap.String("address", e.Addr().String()))
	}
}

// serveClients serves clients, and says so in the words that scripts wait for.
func (p *ports) serveClients(r *rpc.Server) {
	p.log.Info("ready to serve client requests")
	h := r.Access(p.cfg.CORS, p.cfg.HostWhitelist).Wrap(r.ClientHandler())
	for _, e := range p.httpOnly.open {
		p.serveHTTP(p.httpOnly, e, p.tls.clients, h, false)
		p.sayServing("http", e)
	}
	for _, e := range p.clients.open {
		if len(p.httpOnly.open) > 0 {
			p.serveBoth(r, e, nil)
			p.sayServing("grpc", e)
		} else {
			p.serveBoth(r, e, h)
			p.sayServing("grpc+http", e)
		}
	}
}

// serveBoth serves gRPC and, if h is not nil, HTTP on one socket.
func (p *ports) serveBoth(r *rpc.Server, e *endpoint, h http.Handler) {
	if e.plain && !e.secure && h == nil {
		p.start(p.clients, func() error { return r.ServeGRPC(e) })
		return
	}
	cfg := rpc.FrontendConfig{NoHTTP: h == nil, Offered: certs.Offered}
	if h == nil {
		front := p.newFrontend(e, p.tls.clients, cfg, false)
		p.start(p.clients, func() error { return r.ServeGRPC(front.GRPC()) })
		return
	}
	hs := p.newHTTPServer(r.Multiplex(h))
	h2 := &http2.Server{MaxConcurrentStreams: p.cfg.MaxStreams}
	cfg.ServeHTTP2 = func(conn net.Conn) {
		h2.ServeConn(conn, &http2.ServeConnOpts{BaseConfig: hs, Handler: hs.Handler})
	}
	front := p.newFrontend(e, p.tls.clients, cfg, false)
	p.start(p.clients, func() error { return r.ServeGRPC(front.GRPC()) })
	p.start(p.clients, func() error { return hs.Serve(front.HTTP()) })
}

// serveHTTP serves HTTP alone.
func (p *ports) serveHTTP(of *listeners, e *endpoint, store *certs.Store, h http.Handler, verifySAN bool) {
	hs := p.newHTTPServer(h)
	if e.plain && !e.secure {
		p.start(of, func() error { return hs.Serve(e) })
		return
	}
	front := p.newFrontend(e, store, rpc.FrontendConfig{NoGRPC: true}, verifySAN)
	p.start(of, func() error { return hs.Serve(front.HTTP()) })
}

// newFrontend sorts what comes in at e. Where there is nothing but TLS, the
// handshake comes before the sorting.
func (p *ports) newFrontend(e *endpoint, store *certs.Store, cfg rpc.FrontendConfig, verifySAN bool) *rpc.Frontend {
	var lis net.Listener = e
	switch {
	case e.secure && !e.plain:
		lis = store.Listener(e, verifySAN)
	case e.secure:
		cfg.Handshake = func(conn net.Conn) (*tls.Conn, error) { return store.Handshake(conn, verifySAN) }
	}
	front := rpc.NewFrontend(lis, cfg)
	p.fronts = append(p.fronts, front)
	return front
}

func (p *ports) newHTTPServer(h http.Handler) *http.Server {
	hs := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: httpHeaderWait,
		ErrorLog:          stdlog.New(io.Discard, "", 0), // what clients do wrong is theirs
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: int(p.cfg.MaxStreams)},
	}
	p.https = append(p.https, hs)
	return hs
}

func (p *ports) sayServing(traffic string, e *endpoint) {
	fields := []zap.Field{zap.String("traffic", traffic), zap.String("address", e.Addr().String())}
	if e.plain {
		p.log.Info("serving client traffic insecurely; this is strongly discouraged!", fields...)
	}
	if e.secure {
		p.log.Info("serving client traffic securely", fields...)
	}
}

// start runs what serves a listener; the first one that breaks ends the server.
func (p *ports) start(of *listeners, do func() error) {
	go func() {
		err := do()
		if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
			return
		}
		select {
		case p.failed <- fmt.Errorf("--%s: %w", of.flag, err):
		default:
		}
	}()
}

// close ends what came in by HTTP and lets nobody in any more; calls in flight on
// gRPC connections are rpc.Server's to end.
func (p *ports) close() {
	for _, l := range []*listeners{p.clients, p.httpOnly, p.metrics, p.peers} {
		if l != nil {
			l.close()
		}
	}
	if p.tls != nil {
		p.tls.close()
	}
	for _, f := range p.fronts {
		_ = f.Close()
	}
	for _, h := range p.https {
		_ = h.Close()
	}
	if p.door != nil {
		p.door.Close()
	}
}
