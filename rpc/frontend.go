package rpc

import (
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Frontend splits the connections of one listener by what they carry, without
// a cost per request. The way of a connection:
//
//	accept ─▶ first bytes ─▶ HTTP/2 preface ──────────────────────▶ GRPC
//	             │                other text ─────────────────────▶ HTTP
//	             └─ no text: Handshake ─▶ by ALPN: not h2 ────────▶ HTTP
//	                                      h2, but HTTP/1.1 too ───▶ HTTP, which
//	                                      serves both (see Server.Multiplex)
//	                                      h2 alone ─▶ sniff ──────▶ GRPC or ServeHTTP2
//
// On a plain connection the first bytes are looked at without being taken, so
// that it passes on untouched. A plain HTTP/2 connection is always taken for
// gRPC, as in etcd. A TLS one is not: browsers, curl and Go's client speak HTTP/2
// there to the HTTP endpoints, and say by ALPN that they could do otherwise; a
// gRPC client says h2 alone.
type Frontend struct {
	lis        net.Listener
	cfg        FrontendConfig
	grpc, http *subListener
	wg         sync.WaitGroup

	mu struct {
		sync.Mutex
		open map[net.Conn]struct{} // those that have not been passed on; nil once closed
	}
}

// FrontendConfig says what a listener carries. The zero value is plain text
// with gRPC and HTTP.
type FrontendConfig struct {
	// NoHTTP refuses what is not gRPC, NoGRPC what is not for an http.Server.
	NoHTTP, NoGRPC bool
	// Handshake makes a TLS connection of one that does not begin like plain
	// text; it closes those that it refuses. If it is nil there is no TLS, unless
	// the listener gives out *tls.Conn with the handshake behind them.
	Handshake func(net.Conn) (*tls.Conn, error)
	// Offered returns the protocols that a client offered by ALPN.
	Offered func(*tls.Conn) []string
	// ServeHTTP2 serves HTTP over HTTP/2 until the connection ends.
	ServeHTTP2 func(net.Conn)
}

const (
	// prefaceBytes is how much of "PRI * HTTP/2.0" tells it from any request line:
	// no method of HTTP/1.1 begins with these four bytes.
	prefaceBytes = "PRI "
	// firstBytesWait is how long a new connection may stay silent. etcd waits for
	// ever for the first byte; a client that connects in advance and speaks later
	// is ordinary, one that stays silent this long holds a descriptor for nothing.
	firstBytesWait = 5 * time.Minute
	// prefaceWait is how long a client may take for the rest of what it has begun to
	// say: the HTTP/2 preface here and in grpc-go, the header of a request.
	prefaceWait = 10 * time.Second
)

// NewFrontend takes lis over; Close closes it.
func NewFrontend(lis net.Listener, cfg FrontendConfig) *Frontend {
	f := &Frontend{lis: lis, cfg: cfg}
	f.grpc, f.http = newSubListener(lis.Addr()), newSubListener(lis.Addr())
	f.mu.open = make(map[net.Conn]struct{})
	if cfg.NoHTTP {
		f.http.fail(net.ErrClosed)
	}
	if cfg.NoGRPC {
		f.grpc.fail(net.ErrClosed)
	}
	f.wg.Add(1)
	go f.accept()
	return f
}

// GRPC returns the listener of the connections that carry gRPC.
func (f *Frontend) GRPC() net.Listener { return f.grpc }

// HTTP returns the listener of the connections for an http.Server.
func (f *Frontend) HTTP() net.Listener { return f.http }

// accept is the frontend's goroutine; it ends with the listener.
func (f *Frontend) accept() {
	defer f.wg.Done()
	for {
		conn, err := f.lis.Accept()
		if err != nil {
			var temporary interface{ Temporary() bool }
			if errors.As(err, &temporary) && temporary.Temporary() {
				time.Sleep(10 * time.Millisecond) // out of descriptors: let some go
				continue
			}
			f.grpc.fail(err)
			f.http.fail(err)
			return
		}
		f.wg.Add(1)
		go f.sort(conn)
	}
}

// sort finds out what conn carries and passes it on.
func (f *Frontend) sort(conn net.Conn) {
	defer f.wg.Done()
	secure, isTLS := conn.(*tls.Conn)
	if isTLS {
		f.sortSecure(secure)
		return
	}
	if !f.enter(conn) {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(firstBytesWait))
	first, err := peek(conn, prefaceBytes[:1])
	if err == nil && string(first) == prefaceBytes[:1] {
		_ = conn.SetReadDeadline(time.Now().Add(prefaceWait))
		first, err = peek(conn, prefaceBytes)
	}
	if !f.leave(conn) || err != nil || conn.SetReadDeadline(time.Time{}) != nil {
		_ = conn.Close()
		return
	}
	switch {
	case string(first) == prefaceBytes:
		f.grpc.hand(conn)
	case f.cfg.Handshake == nil || isText(first[0]):
		f.http.hand(conn)
	default:
		if secure, err := f.cfg.Handshake(conn); err == nil {
			f.sortSecure(secure)
		}
	}
}

// isText reports whether a request line may begin with c. A TLS record begins
// with its type, 22.
func isText(c byte) bool { return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' }

// protoHTTP2 is HTTP/2's name in ALPN.
const protoHTTP2 = "h2"

func (f *Frontend) sortSecure(conn *tls.Conn) {
	http2 := conn.ConnectionState().NegotiatedProtocol == protoHTTP2
	switch {
	case f.cfg.NoHTTP && http2:
		f.grpc.hand(conn)
		return
	case f.cfg.NoGRPC, !http2, f.cfg.Offered == nil, slices.Contains(f.cfg.Offered(conn), "http/1.1"):
		f.http.hand(conn)
		return
	}
	if !f.enter(conn) {
		_ = conn.Close()
		return
	}
	rest, kind, err := sniffHTTP2(conn)
	if err == nil && kind == sniffedHTTP {
		f.cfg.ServeHTTP2(rest)
		f.leave(conn)
		_ = conn.Close()
		return
	}
	if !f.leave(conn) || err != nil {
		_ = conn.Close()
		return
	}
	f.grpc.hand(rest)
}

// enter notes a connection that Close has to cut short.
func (f *Frontend) enter(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.open == nil {
		return false
	}
	f.mu.open[conn] = struct{}{}
	return true
}

// leave reports whether the frontend is still open.
func (f *Frontend) leave(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mu.open, conn)
	return f.mu.open != nil
}

// Close closes the listener; connections that were passed on live on, those
// that ServeHTTP2 serves do not.
func (f *Frontend) Close() error {
	err := f.lis.Close()
	f.grpc.fail(net.ErrClosed)
	f.http.fail(net.ErrClosed)
	f.mu.Lock()
	for conn := range f.mu.open {
		_ = conn.SetDeadline(time.Unix(1, 0))
	}
	f.mu.open = nil
	f.mu.Unlock()
	f.wg.Wait()
	return err
}

var errNotPeekable = errors.New("rpc: connection cannot be looked into")

// peek returns the first bytes of conn, as many as it takes to tell whether they
// are want, and leaves them to be read.
func peek(conn net.Conn, want string) ([]byte, error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errNotPeekable
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, len(want))
	var got int
	var perr error
	err = raw.Read(func(fd uintptr) bool {
		got, _, perr = syscall.Recvfrom(int(fd), buf, syscall.MSG_PEEK)
		switch {
		case errors.Is(perr, syscall.EAGAIN):
			perr = nil
			return false
		case errors.Is(perr, syscall.EINTR):
			perr = nil
			return false
		case perr == nil && got == 0:
			perr = net.ErrClosed
		}
		return perr != nil || got == len(want) || string(buf[:got]) != want[:got]
	})
	if err == nil {
		err = perr
	}
	return buf[:max(got, 0)], err
}

// subListener gives out the connections of one kind.
type subListener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	err    error // why closed; set before closed is
}

func newSubListener(addr net.Addr) *subListener {
	return &subListener{addr: addr, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *subListener) hand(conn net.Conn) {
	select {
	case l.conns <- conn:
	case <-l.closed:
		_ = conn.Close()
	}
}

func (l *subListener) fail(err error) {
	l.once.Do(func() {
		l.err = err
		close(l.closed)
	})
}

// Accept implements net.Listener.
func (l *subListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, l.err
	}
}

// Addr implements net.Listener.
func (l *subListener) Addr() net.Addr { return l.addr }

// Close implements net.Listener. Connections of this kind are then refused.
func (l *subListener) Close() error {
	l.fail(net.ErrClosed)
	return nil
}
