package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"time"

	"go.uber.org/zap"

	"quire/socket"
)

const (
	// firstBackoff and lastBackoff bound the pause between two attempts to
	// reach a peer. It doubles, and each is shortened by up to a half, so that
	// members do not dial in step. A peer that dials us ends our pause.
	firstBackoff = 20 * time.Millisecond
	lastBackoff  = time.Second
	// refusedBackoff is the pause after a refusal: only people can mend that.
	refusedBackoff = 2 * time.Second
	// repeatLog is how often one and the same fault of a peer is logged.
	repeatLog = time.Minute
)

type backoff struct{ next time.Duration }

func (b *backoff) reset() { b.next = 0 }

func (b *backoff) pause(err error) time.Duration {
	if isRefusal(err) {
		return refusedBackoff
	}
	b.next = min(max(2*b.next, firstBackoff), lastBackoff)
	return b.next - time.Duration(rand.Int64N(int64(b.next/2)))
}

// address is where a peer can be reached: its URLs, one of which is tried
// until it fails.
type address struct {
	mu struct {
		sync.Mutex
		urls []string
		at   int
	}
}

func (a *address) set(urls []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.urls, a.mu.at = urls, 0
}

func (a *address) pick() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.mu.urls) == 0 {
		return ""
	}
	return a.mu.urls[a.mu.at%len(a.mu.urls)]
}

func (a *address) failed() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.at++
}

// connect opens one connection to a peer and greets it.
func (t *Transport) connect(ctx context.Context, p *peer, k kind) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, t.cfg.DialTimeout)
	defer cancel()
	conn, err := t.dial(ctx, p.address.pick())
	if err != nil {
		p.address.failed()
		return nil, err
	}
	l := t.newLink(conn, k, p)
	l.dialed = true
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err = t.greet(conn, p, k)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = conn.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = conn.Close()
		p.address.failed()
		return nil, err
	}
	return l, nil
}

// dial opens the socket that a peer URL names, with TLS if it says so.
func (t *Transport) dial(ctx context.Context, raw string) (net.Conn, error) {
	u, err := url.Parse(raw)
	if err != nil || raw == "" {
		return nil, fmt.Errorf("peer URL %q: %w", raw, errors.Join(err, errors.New("cannot be dialed")))
	}
	d := net.Dialer{KeepAlive: keepAlive}
	network, addr := "tcp", u.Host
	if u.Scheme == "unix" || u.Scheme == "unixs" {
		network, addr = "unix", u.Host+u.Path
	} else if t.cfg.LocalAddr != nil {
		d.LocalAddr = &net.TCPAddr{IP: t.cfg.LocalAddr}
	}
	conn, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conn = socket.Wrap(conn)
	if u.Scheme != "https" && u.Scheme != "unixs" {
		return conn, nil
	}
	if t.cfg.TLS == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("peer URL %s asks for TLS, for which nothing is configured", raw)
	}
	c := t.cfg.TLS()
	if c.ServerName == "" {
		c = c.Clone()
		c.ServerName = u.Hostname()
	}
	tc := tls.Client(conn, c)
	if err := tc.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return tc, nil
}

// greet says hello and reads the answer.
func (t *Transport) greet(conn net.Conn, p *peer, k kind) error {
	h := t.hello(k, p.id)
	if _, err := conn.Write(appendFrame([]byte(magic), frameHello, h.encode())); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	body, err := readFrame(conn, frameWelcome)
	if err != nil {
		return fmt.Errorf("answer to hello: %w", err)
	}
	var w welcome
	if err := w.decode(body); err != nil {
		return err
	}
	if w.refusal == accepted && w.id != p.id {
		return fmt.Errorf("%w: member %x answered", errIdentity, w.id)
	}
	if err := w.refusal.err(); err != nil {
		return &refusedError{w, err}
	}
	if w.version < minProtocol || w.version > maxProtocol {
		return &refusedError{w, errIncompatible}
	}
	p.serverVersion.Store(&w.serverVersion)
	return nil
}

// refusedError is a peer's refusal of a connection.
type refusedError struct {
	welcome
	cause error
}

func (e *refusedError) Error() string { return "refused by the peer: " + e.cause.Error() }
func (e *refusedError) Unwrap() error { return e.cause }

func isRefusal(err error) bool {
	var r *refusedError
	return errors.As(err, &r)
}

func isRemoval(err error) bool { return errors.Is(err, errRemoved) }

// readFrame reads the one frame with which a side greets, byte for byte: what
// follows belongs to the link's reader.
func readFrame(r io.Reader, want frameType) ([]byte, error) {
	var hb [headBytes]byte
	if _, err := io.ReadFull(r, hb[:]); err != nil {
		return nil, err
	}
	h, err := readHead(hb[:], maxGreeting)
	if err != nil {
		return nil, err
	}
	if h.typ != want {
		return nil, fmt.Errorf("%w: type %d, want %d", errFrame, h.typ, want)
	}
	body := make([]byte, h.length)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	return body, h.check(hb[:], body)
}

// maxGreeting bounds a hello and its answer.
const maxGreeting = 16 << 10

// complaints logs the faults of one peer's connections, each once a minute.
type complaints struct {
	mu struct {
		sync.Mutex
		last string
		at   time.Time
	}
}

// due tells whether a fault is to be logged.
func (c *complaints) due(fault string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if fault == c.mu.last && time.Since(c.mu.at) < repeatLog {
		return false
	}
	c.mu.last, c.mu.at = fault, time.Now()
	return true
}

// essence is what makes a fault the same as the last one: not the kind of the
// connection, nor its port.
func essence(err error) string {
	var r *refusedError
	var op *net.OpError
	switch {
	case errors.As(err, &r):
		return r.cause.Error()
	case errors.As(err, &op):
		return op.Op + " " + op.Err.Error()
	}
	return err.Error()
}

// forget makes the next fault news.
func (c *complaints) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.last = ""
}

// complain logs why a peer could not be reached, in etcd's words.
func (t *Transport) complain(p *peer, k kind, err error) {
	var r *refusedError
	errors.As(err, &r)
	if !p.complaints.due(essence(err)) {
		return
	}
	fields := []zap.Field{hexID("remote-peer-id", p.id), hexID("local-member-id", t.cfg.ID)}
	switch {
	case errors.Is(err, errIncompatible):
		t.log.Warn("request sent was ignored by remote peer due to server version incompatibility",
			append(fields, zap.String("remote-peer-server-version", r.serverVersion), zap.Error(errIncompatible))...)
	case errors.Is(err, errCluster):
		t.log.Warn("request sent was ignored by remote peer due to cluster ID mismatch",
			append(fields, hexID("remote-peer-cluster-id", r.cluster), hexID("local-member-cluster-id", t.cfg.ClusterID), zap.Error(errCluster))...)
	case r != nil:
		t.log.Warn("request sent was ignored by remote peer", append(fields, hexID("remote-peer-answering-id", r.id), zap.Error(r.cause))...)
	default:
		t.log.Warn("prober detected unhealthy status", append(fields, zap.String("connection", k.String()), zap.Error(err))...)
	}
}
