package harness

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// Net stands between the members of a cluster: a proxy in front of each peer port, which knows from the first bytes of
// a connection who has opened it.
type Net struct {
	mu struct {
		sync.Mutex
		cut   map[[2]uint64]bool // from, to: nothing passes
		conns map[*passage]bool
	}
}

// Link is the way to one member.
type Link struct {
	net *Net
	lis net.Listener
	to  string // where the member listens
	old *Link  // that this one has replaced
}

// passage is one connection through a link.
type passage struct {
	link     *Link
	from, to uint64 // 0: not quire's peer protocol
	a, b     net.Conn
}

func newNet() *Net {
	n := &Net{}
	n.mu.cut, n.mu.conns = map[[2]uint64]bool{}, map[*passage]bool{}
	return n
}

// link opens a proxy in front of an address.
func (n *Net) link(t testing.TB, to string) *Link {
	t.Helper()
	var lis net.Listener
	err := net.ErrClosed
	for range 10 { // a server that a test before has started may still be there
		if lis, err = net.Listen("tcp", FreePort(t)); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	l := &Link{net: n, lis: lis, to: to}
	t.Cleanup(func() {
		lis.Close()
		n.drop(func(p *passage) bool { return p.link == l })
	})
	go func() {
		for {
			conn, err := lis.Accept()
			if err != nil {
				return
			}
			go l.pass(conn)
		}
	}()
	return l
}

// address is where the others reach the member.
func (l *Link) address() string { return l.lis.Addr().String() }

// greeting is how much of a connection tells who is who in quire's peer protocol: 8 bytes of magic, 16 of frame head, two
// versions and the kind of a byte each, then cluster, from and to.
const greeting = 8 + 16 + 3 + 3*8

func (l *Link) pass(conn net.Conn) {
	defer conn.Close()
	first := make([]byte, greeting)
	k, err := io.ReadAtLeast(conn, first, 1)
	if err != nil {
		return
	}
	p := &passage{link: l, a: conn}
	if first[0] == 0xf1 {
		if _, err := io.ReadFull(conn, first[k:]); err != nil {
			return
		}
		k = greeting
		p.from, p.to = binary.LittleEndian.Uint64(first[35:]), binary.LittleEndian.Uint64(first[43:])
	}
	if p.b, err = net.Dial("tcp", l.to); err != nil {
		return
	}
	defer p.b.Close()
	if !l.net.enter(p) {
		return
	}
	defer l.net.leave(p)
	if _, err := p.b.Write(first[:k]); err != nil {
		return
	}
	done := make(chan struct{}, 2)
	for _, c := range [][2]net.Conn{{p.a, p.b}, {p.b, p.a}} {
		go func() {
			_, _ = io.Copy(c[0], c[1])
			_, _ = p.a.Close(), p.b.Close()
			done <- struct{}{}
		}()
	}
	<-done
	<-done
}

func (n *Net) enter(p *passage) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.mu.cut[[2]uint64{p.from, p.to}] {
		return false
	}
	n.mu.conns[p] = true
	return true
}

func (n *Net) leave(p *passage) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.conns, p)
}

// drop closes the connections that match.
func (n *Net) drop(match func(*passage) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.mu.conns {
		if match(p) {
			_, _ = p.a.Close(), p.b.Close()
		}
	}
}

// cut lets nothing pass any more that one member sends to another.
func (n *Net) cut(from, to uint64) {
	n.mu.Lock()
	n.mu.cut[[2]uint64{from, to}] = true
	n.mu.Unlock()
	n.drop(func(p *passage) bool { return p.from == from && p.to == to })
}

// heal ends all cuts.
func (n *Net) heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.mu.cut)
}
