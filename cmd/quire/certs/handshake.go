package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	// handshakeTime is what a handshake may take, as in etcd.
	handshakeTime = 10 * time.Second
	// refusalsPerSecond bounds the log lines that refused connections cost.
	refusalsPerSecond = 50
)

var (
	errClosed  = fmt.Errorf("certs: %w", net.ErrClosed)
	errEvicted = errors.New("tls: handshake given up for another one: the client was silent and too many were waiting")
)

// Handshake takes conn through its handshake, within a deadline and under the
// store's bound, and checks the client's certificate. With verifySAN a client's
// certificate must also name the address that it comes from. A connection that
// fails is logged and closed.
func (s *Store) Handshake(conn net.Conn, verifySAN bool) (*tls.Conn, error) {
	p := &pending{Conn: conn}
	if !s.gate.enter(p) {
		_ = conn.Close()
		return nil, errClosed
	}
	return s.handshake(p, verifySAN)
}

// handshake works on a connection that the gate has let in.
func (s *Store) handshake(p *pending, verifySAN bool) (*tls.Conn, error) {
	deadline := time.Now().Add(handshakeTime)
	err := p.SetDeadline(deadline)
	conn := tls.Server(p, s.ServerConfig())
	if err == nil {
		err = conn.Handshake()
	}
	if err == nil && verifySAN && !s.cfg.SkipClientSANVerify {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		err = verifyClientSAN(ctx, conn)
		cancel()
	}
	if err != nil {
		linger(p, err)
	}
	s.gate.leave(p)
	p.done.Store(true)
	if p.evicted.Load() {
		err = errEvicted
	}
	if err == nil {
		err = p.SetDeadline(time.Time{})
	}
	if err != nil {
		s.refused(conn, err)
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

const (
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 64 << 10
)

// linger waits until a refused client has gone, so that the alert which tells it
// why gets through: closing a connection from which not everything was read
// makes the kernel throw away what was sent. It happens inside the gate.
func linger(p *pending, err error) {
	half, ok := p.Conn.(interface{ CloseWrite() error })
	var timeout net.Error
	if !ok || errors.Is(err, io.EOF) || errors.As(err, &timeout) && timeout.Timeout() || half.CloseWrite() != nil {
		return
	}
	if p.SetReadDeadline(time.Now().Add(lingerTime)) == nil && !p.evicted.Load() {
		_, _ = io.CopyN(io.Discard, p, lingerBytes)
	}
}

// Offered returns the protocols that the client offered by ALPN, of a connection
// that comes from a Store.
func Offered(conn *tls.Conn) []string {
	if p, ok := conn.NetConn().(*pending); ok {
		return p.offered
	}
	return nil
}

// refusals counts refused connections and bounds their log lines.
type refusals struct {
	total                       atomic.Uint64
	second, logged, keptSilence atomic.Int64
}

// mayLog reports whether another line may be written this second, and how many
// were left out before.
func (r *refusals) mayLog(now time.Time) (ok bool, leftOut int64) {
	if second := now.Unix(); r.second.Swap(second) != second {
		r.logged.Store(0)
	}
	if r.logged.Add(1) > refusalsPerSecond {
		r.keptSilence.Add(1)
		return false, 0
	}
	return true, r.keptSilence.Swap(0)
}

// refused logs a failed handshake in etcd's words. A client that just went away
// (a port scan, a load balancer's check) is not worth more than a debug line.
func (s *Store) refused(conn *tls.Conn, err error) {
	s.refusals.total.Add(1)
	level := zapcore.WarnLevel
	if errors.Is(err, io.EOF) {
		level = zapcore.DebugLevel
	}
	entry := s.log.Check(level, "rejected connection on "+s.opts.Endpoint+" endpoint")
	if entry == nil {
		return
	}
	ok, leftOut := s.refusals.mayLog(time.Now())
	if !ok {
		return
	}
	state := conn.ConnectionState()
	fields := []zap.Field{zap.String("remote-addr", conn.RemoteAddr().String()), zap.String("server-name", state.ServerName)}
	if len(state.PeerCertificates) > 0 {
		cert := state.PeerCertificates[0]
		ips := make([]string, len(cert.IPAddresses))
		for i, ip := range cert.IPAddresses {
			ips[i] = ip.String()
		}
		fields = append(fields, zap.Strings("ip-addresses", ips), zap.Strings("dns-names", cert.DNSNames))
	}
	if leftOut > 0 {
		fields = append(fields, zap.Int64("not-logged-before", leftOut))
	}
	entry.Write(append(fields, zap.Error(err))...)
}

// Close ends the handshakes that are under way; none begins after that.
// Connections that were handed out live on.
func (s *Store) Close() { s.gate.close() }

// Listener returns a listener whose connections have their handshake behind
// them. Closing it closes lis.
func (s *Store) Listener(lis net.Listener, verifySAN bool) net.Listener {
	l := &listener{Listener: lis, store: s, verifySAN: verifySAN, ready: make(chan *tls.Conn), closed: make(chan struct{})}
	go l.run()
	return l
}

// listener accepts on one goroutine and shakes hands on one a connection.
type listener struct {
	net.Listener
	store     *Store
	verifySAN bool
	ready     chan *tls.Conn
	closed    chan struct{} // the accepting goroutine has ended, for the reason err
	err       error
}

func (l *listener) run() {
	var under sync.WaitGroup
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				time.Sleep(10 * time.Millisecond) // out of descriptors: let some go
				continue
			}
			l.err = err
			close(l.closed)
			under.Wait()
			return
		}
		p := &pending{Conn: conn}
		if !l.store.gate.enter(p) { // full and nobody stalls: the kernel's queue holds the next
			_ = conn.Close()
			continue
		}
		under.Add(1)
		go func() {
			defer under.Done()
			l.serve(p)
		}()
	}
}

func (l *listener) serve(p *pending) {
	conn, err := l.store.handshake(p, l.verifySAN)
	if err != nil {
		return
	}
	select {
	case l.ready <- conn:
	case <-l.closed:
		_ = conn.Close()
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.closed:
		return nil, l.err
	}
}
