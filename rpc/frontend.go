package rpc

import (
	"errors"
	"net"
	"sync"
	"syscall"
	"time"
)

// Frontend splits the connections of one listener: those that begin with the
// HTTP/2 preface (gRPC) go to one, all others (HTTP/1.1) to another. It looks
// at the first bytes without taking them, so that the connection passes on
// untouched and costs nothing per request.
type Frontend struct {
	lis        net.Listener
	grpc, http *subListener
	wg         sync.WaitGroup

	mu struct {
		sync.Mutex
		silent map[net.Conn]struct{} // nothing has come yet; nil once closed
	}
}

// prefaceBytes is how much of "PRI * HTTP/2.0" tells it from any request line:
// no method of HTTP/1.1 begins with these four bytes.
const prefaceBytes = "PRI "

// firstBytesWait is how long a new connection may stay silent. etcd waits for
// ever for the first byte; a client that connects in advance and speaks later
// is ordinary, one that stays silent this long holds a descriptor for nothing.
const firstBytesWait = 5 * time.Minute

// NewFrontend takes lis over; Close closes it.
func NewFrontend(lis net.Listener) *Frontend {
	f := &Frontend{lis: lis}
	f.grpc, f.http = newSubListener(lis.Addr()), newSubListener(lis.Addr())
	f.mu.silent = make(map[net.Conn]struct{})
	f.wg.Add(1)
	go f.accept()
	return f
}

// GRPC returns the listener of the HTTP/2 connections.
func (f *Frontend) GRPC() net.Listener { return f.grpc }

// HTTP returns the listener of the HTTP/1.1 connections.
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

// sort waits for the first bytes of conn and passes it on.
func (f *Frontend) sort(conn net.Conn) {
	defer f.wg.Done()
	if !f.listen(conn) {
		_ = conn.Close()
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(firstBytesWait))
	first, err := peek(conn, prefaceBytes)
	if !f.heard(conn) || err != nil || conn.SetReadDeadline(time.Time{}) != nil {
		_ = conn.Close()
		return
	}
	to := f.http
	if string(first) == prefaceBytes {
		to = f.grpc
	}
	to.hand(conn)
}

// listen notes a silent connection, which Close cuts short.
func (f *Frontend) listen(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.silent == nil {
		return false
	}
	f.mu.silent[conn] = struct{}{}
	return true
}

// heard reports whether the frontend is still open.
func (f *Frontend) heard(conn net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mu.silent, conn)
	return f.mu.silent != nil
}

// Close closes the listener; connections that were passed on live on.
func (f *Frontend) Close() error {
	err := f.lis.Close()
	f.grpc.fail(net.ErrClosed)
	f.http.fail(net.ErrClosed)
	f.mu.Lock()
	for conn := range f.mu.silent {
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}
	f.mu.silent = nil
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
