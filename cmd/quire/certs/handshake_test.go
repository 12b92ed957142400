package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// world is a store that serves one listener and answers a byte with itself.
type world struct {
	*authority
	test  testing.TB
	store *Store
	lis   net.Listener
	logs  *observer.ObservedLogs
	seen  map[string]int // lines that newLines has returned, by message
}

func newWorld(t *testing.T, a *authority, cfg Config, verifySAN bool, handshakes ...int) *world {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	opts := Options{Endpoint: "client", Logger: zap.New(core), Protos: []string{"h2", "http/1.1"}}
	if len(handshakes) > 0 {
		opts.Handshakes = handshakes[0]
	}
	s, err := Open(cfg, opts)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{authority: a, test: t, store: s, lis: s.Listener(plain, verifySAN), logs: logs, seen: map[string]int{}}
	var echoes sync.WaitGroup
	echoes.Go(func() {
		for {
			conn, err := w.lis.Accept()
			if err != nil {
				return
			}
			echoes.Go(func() {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(func() {
		_ = w.lis.Close()
		s.Close()
		echoes.Wait()
	})
	return w
}

// talk connects, sends a byte and wants it back: with TLS 1.3 a client learns
// only then whether it was accepted.
func (w *world) talk(client *tls.Config) (*tls.Conn, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", w.lis.Addr().String(), client)
	if err != nil {
		return nil, err
	}
	if err := echo(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	w.test.Cleanup(func() { _ = conn.Close() })
	return conn, nil
}

func echo(conn net.Conn) error {
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 1))
	return err
}

// newLines returns the log lines with this message that have not been returned
// yet.
func (w *world) newLines(msg string) []observer.LoggedEntry {
	all := w.logs.FilterMessage(msg).All()
	lines := all[w.seen[msg]:]
	w.seen[msg] = len(all)
	return lines
}

// lastRefusal waits for the line about a refused connection.
func (w *world) lastRefusal() string {
	for range 200 {
		if lines := w.newLines("rejected connection on client endpoint"); len(lines) > 0 {
			f := lines[len(lines)-1].ContextMap()
			if f["remote-addr"] == "" || f["remote-addr"] == nil {
				return "no remote-addr"
			}
			text, _ := f["error"].(string)
			return text
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ""
}

func TestRefusals(t *testing.T) {
	a, other := newAuthority(t, "ours"), newAuthority(t, "theirs")
	a.issue("server", nil)
	good, revoked := a.issue("good", nil), a.issue("revoked", nil)
	expired := a.issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	elsewhere := a.issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(10, 9, 9, 9)} })
	named := a.issue("named", func(c *x509.Certificate) { c.DNSNames = []string{"good.example"} })
	serverOnly := a.issue("server-only", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	stranger := other.issue("stranger", nil)

	crl := a.config()
	crl.CRLFile = a.revoke("crl.der", false, revoked)
	crlPEM := a.config()
	crlPEM.CRLFile = a.revoke("crl.pem", true, revoked)
	hosts := a.config()
	hosts.AllowedHostnames = []string{"other.example", "good.example"}
	cns := a.config()
	cns.AllowedCNs = []string{"good"}
	noCA := a.config()
	noCA.TrustedCAFile = ""
	modern := a.config()
	modern.MinVersion = tls.VersionTLS13

	limit := func(c *tls.Config, v uint16) *tls.Config {
		c.MinVersion, c.MaxVersion = tls.VersionTLS10, v
		return c
	}
	for _, tc := range []struct {
		name   string
		cfg    Config
		san    bool
		client *tls.Config
		want   string // of the log; empty: accepted
	}{
		{"good", a.config(), true, a.trusts(good), ""},
		{"no certificate", a.config(), false, a.trusts(), "tls: client didn't provide a certificate"},
		{"none demanded", noCA, false, a.trusts(), ""},
		{"needless certificate", noCA, false, a.trusts(stranger), ""},
		{"expired", a.config(), false, a.trusts(expired), "certificate has expired or is not yet valid"},
		{"wrong CA", a.config(), false, a.trusts(stranger), "certificate signed by unknown authority"},
		{"not for clients", a.config(), false, a.trusts(serverOnly), "certificate specifies an incompatible key usage"},
		{"revoked", crl, false, a.trusts(revoked), "transport: certificate serial 04 revoked"},
		{"revoked, list in PEM", crlPEM, false, a.trusts(revoked), "transport: certificate serial 04 revoked"},
		{"not revoked", crl, false, a.trusts(good), ""},
		{"another address", a.config(), true, a.trusts(elsewhere), "x509: certificate is valid for 10.9.9.9, not 127.0.0.1"},
		{"address not asked for", a.config(), false, a.trusts(elsewhere), ""},
		{"host name not allowed", hosts, false, a.trusts(good), "client certificate authentication failed"},
		{"host name allowed", hosts, false, a.trusts(named), ""},
		{"CN not allowed", cns, false, a.trusts(named), "client certificate authentication failed"},
		{"CN allowed", cns, false, a.trusts(good), ""},
		{"TLS 1.1", a.config(), false, limit(a.trusts(good), tls.VersionTLS11), "client offered only unsupported versions"},
		{"TLS 1.2", a.config(), false, limit(a.trusts(good), tls.VersionTLS12), ""},
		{"TLS 1.2 where 1.3 is least", modern, false, limit(a.trusts(good), tls.VersionTLS12), "client offered only unsupported versions"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t, a, tc.cfg, tc.san)
			conn, err := w.talk(tc.client)
			if tc.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if n := len(conn.ConnectionState().PeerCertificates); n != 1 {
					t.Errorf("%d certificates", n)
				}
				return
			}
			if err == nil {
				t.Error("accepted")
			}
			if got := w.lastRefusal(); !strings.Contains(got, tc.want) {
				t.Errorf("logged %q, want %q", got, tc.want)
			}
		})
	}
}

func TestPlainTextIsRefused(t *testing.T) {
	a := newAuthority(t, "ours")
	a.issue("server", nil)
	w := newWorld(t, a, a.config(), false)
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", strings.Repeat("\x16", 600)} {
		conn, err := net.Dial("tcp", w.lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = conn.Write([]byte(text))
		if b, _ := io.ReadAll(conn); strings.Contains(string(b), "HTTP/") {
			t.Errorf("%q is answered in plain text: %q", text, b)
		}
		_ = conn.Close()
		if got := w.lastRefusal(); !strings.Contains(got, "tls: ") {
			t.Errorf("%q: logged %q", text, got)
		}
	}
}

// TestSilentClientsHoldUpNobody (GHSA-6vch) opens many more connections than may be in their
// handshake and leaves them there.
func TestSilentClientsHoldUpNobody(t *testing.T) {
	a := newAuthority(t, "ours")
	a.issue("server", nil)
	good := a.issue("good", nil)
	w := newWorld(t, a, a.config(), false, 32)
	before := runtime.NumGoroutine()
	for range 120 {
		conn, err := net.Dial("tcp", w.lis.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write([]byte{22, 3, 1}) // the beginning of a record
	}
	time.Sleep(stalledAfter + 100*time.Millisecond) // all that fit in have stalled
	for range 50 {
		start := time.Now()
		conn, err := w.talk(a.trusts(good))
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		// Behind it in the kernel's queue stand silent ones that have to come in
		// and stall first, limit by limit.
		if took := time.Since(start); took > 120/32*(stalledAfter+time.Second) {
			t.Errorf("a handshake took %v", took)
		}
		if n := w.store.gate.size(); n > 32 {
			t.Fatalf("%d handshakes under way", n)
		}
	}
	if n := runtime.NumGoroutine(); n > before+32+8 {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	if w.store.gate.evictions.Load() == 0 {
		t.Error("nobody made room")
	}
}

func TestBusyHandshakesAreNotEvicted(t *testing.T) {
	g := newGate(1)
	first, second := &pending{Conn: nil}, &pending{Conn: nil}
	if !g.enter(first) {
		t.Fatal("not let in")
	}
	first.waiting.Store(time.Now().UnixNano()) // waits, but not for long
	in := make(chan bool)
	go func() { in <- g.enter(second) }()
	select {
	case <-in:
		t.Fatal("two in a gate for one")
	case <-time.After(3 * gatePoll):
	}
	g.leave(first)
	if !<-in {
		t.Error("not let in when there was room")
	}
	if g.evictions.Load() != 0 {
		t.Error("evicted")
	}
}

func TestHandshakeHasADeadline(t *testing.T) {
	a := newAuthority(t, "ours")
	a.issue("server", nil)
	synctest.Test(t, func(t *testing.T) {
		s, err := Open(a.config(), Options{Endpoint: "client"})
		if err != nil {
			t.Fatal(err)
		}
		server, client := net.Pipe()
		defer client.Close()
		go func() { _, _ = client.Write([]byte{22, 3, 1, 0, 100}) }()
		start := time.Now()
		if _, err := s.Handshake(server, false); err == nil {
			t.Error("accepted")
		}
		if took := time.Since(start); took != handshakeTime {
			t.Errorf("gave up after %v", took)
		}
	})
}

func TestCloseEndsHandshakes(t *testing.T) {
	a := newAuthority(t, "ours")
	a.issue("server", nil)
	w := newWorld(t, a, a.config(), false)
	conn, err := net.Dial("tcp", w.lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for w.store.gate.size() == 0 {
		time.Sleep(time.Millisecond)
	}
	_ = w.lis.Close()
	w.store.Close()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the handshake goes on: %v", err)
	}
	if _, err := w.lis.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := w.store.Handshake(conn, false); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Handshake: %v", err)
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func TestRefusalLinesAreBounded(t *testing.T) {
	var r refusals
	now := time.Unix(100, 0)
	logged := 0
	for range 1000 {
		if ok, _ := r.mayLog(now); ok {
			logged++
		}
	}
	ok, leftOut := r.mayLog(now.Add(time.Second))
	if logged != refusalsPerSecond || !ok || leftOut != 1000-refusalsPerSecond {
		t.Errorf("%d lines, then %v with %d left out", logged, ok, leftOut)
	}
}
