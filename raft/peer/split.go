package peer

import (
	"net"
	"sync"
)

// splitListener hands on the connections that turned out to speak HTTP.
type splitListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// maxHTTPWaiting bounds the HTTP connections that nobody has accepted yet.
const maxHTTPWaiting = 32

func newSplitListener() *splitListener {
	return &splitListener{conns: make(chan net.Conn, maxHTTPWaiting), done: make(chan struct{})}
}

func (s *splitListener) push(c net.Conn) {
	select {
	case s.conns <- c:
	default:
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (s *splitListener) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (s *splitListener) Close() error {
	s.once.Do(func() { close(s.done) })
	for {
		select {
		case c := <-s.conns:
			_ = c.Close()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (s *splitListener) Addr() net.Addr { return splitAddr{} }

type splitAddr struct{}

func (splitAddr) Network() string { return "peer" }
func (splitAddr) String() string  { return "peer" }

// prefixedConn gives back what was read to sort the connection.
type prefixedConn struct {
	net.Conn
	prefix []byte
}

// Read implements net.Conn.
func (c *prefixedConn) Read(b []byte) (int, error) {
	if len(c.prefix) > 0 {
		n := copy(b, c.prefix)
		c.prefix = c.prefix[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}
