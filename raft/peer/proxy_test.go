package peer

import (
	"net"
	"sync"
	"testing"
	"time"
)

// proxy stands in front of a node and does what networks do.
type proxy struct {
	lis    net.Listener
	to     string
	perSec int // bytes of each connection; 0: no bound

	mu     sync.Mutex
	conns  map[net.Conn]bool
	frozen bool
	flipAt int // damage this many bytes from now; <0: none
}

// slowProxy forwards to an address.
func slowProxy(t *testing.T, to string, bytesPerSecond int) *proxy {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{lis: lis, to: to, perSec: bytesPerSecond, conns: map[net.Conn]bool{}, flipAt: -1}
	t.Cleanup(func() {
		_ = lis.Close()
		p.cut()
	})
	go func() {
		for {
			c, err := lis.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			p.mu.Lock()
			p.conns[c], p.conns[s] = true, true
			p.mu.Unlock()
			go p.copy(s, c, true)
			go p.copy(c, s, false)
		}
	}()
	return p
}

func (p *proxy) addr() string { return p.lis.Addr().String() }

func (p *proxy) copy(dst, src net.Conn, toServer bool) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		frozen := p.frozen
		if toServer && p.flipAt >= 0 {
			if p.flipAt < n {
				buf[p.flipAt] ^= 0x10
				p.flipAt = -1
			} else {
				p.flipAt -= n
			}
		}
		p.mu.Unlock()
		if frozen {
			select {} // the goroutine dies with the test process
		}
		if p.perSec > 0 {
			time.Sleep(time.Duration(n) * time.Second / time.Duration(p.perSec))
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

// cut closes every connection; new ones are accepted.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
	clear(p.conns)
}

// freeze keeps the connections open and carries nothing any more.
func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
}

// flip damages one bit of the byte that comes after n more to the server.
func (p *proxy) flip(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flipAt = n
}

func (p *proxy) flipped() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flipAt < 0
}
