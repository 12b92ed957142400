package certs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// lookNow lets the next handshake look at the files.
func (w *world) lookNow() { w.store.due.Store(0) }

func TestReload(t *testing.T) {
	a, other := newAuthority(t, "ours"), newAuthority(t, "next")
	first := a.issue("server", nil)
	good, late := a.issue("good", nil), other.issue("late", nil)
	cfg := a.config()
	cfg.CRLFile = a.revoke("crl.der", false)
	w := newWorld(t, a, cfg, false)
	open, err := w.talk(a.trusts(good))
	if err != nil {
		t.Fatal(err)
	}
	accepts := func(what string, client *tls.Config, want bool) {
		t.Helper()
		w.lookNow()
		if _, err := w.talk(client); (err == nil) != want {
			t.Errorf("%s: %v", what, err)
		}
	}
	serial := func() string {
		conn, err := w.talk(a.trusts(good))
		if err != nil {
			t.Fatal(err)
		}
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}

	second := a.issue("server", nil)
	if got := serial(); got != first.Leaf.SerialNumber.String() {
		t.Error("the files were looked at twice within a second")
	}
	w.lookNow()
	if got := serial(); got != second.Leaf.SerialNumber.String() {
		t.Error("the new certificate is not presented")
	}
	accepts("of an unknown CA", a.trusts(late), false)
	both := slices.Concat(must(os.ReadFile(a.file("ca.pem")))(t), must(os.ReadFile(other.file("ca.pem")))(t))
	if err := writeFile(a.file("ca.pem"), both, 0o600); err != nil {
		t.Fatal(err)
	}
	accepts("of the CA that was added", a.trusts(late), true)
	accepts("of the CA that stayed", a.trusts(good), true)
	a.revoke("crl.der", false, good)
	accepts("revoked", a.trusts(good), false)
	a.revoke("crl.der", false)
	accepts("no longer revoked", a.trusts(good), true)
	put(t, a.file("ca.pem"), "CERTIFICATE", other.cert.Raw)
	accepts("of the CA that was taken out", a.trusts(good), false)
	if err := echo(open); err != nil {
		t.Errorf("the connection of the beginning: %v", err)
	}
	if n := w.store.reloads.Load(); n != 5 {
		t.Errorf("%d reloads", n)
	}
}

func TestBrokenFilesChangeNothing(t *testing.T) {
	a := newAuthority(t, "ours")
	a.issue("server", nil)
	good, revoked := a.issue("good", nil), a.issue("revoked", nil)
	cfg := a.config()
	cfg.CRLFile = a.revoke("crl.der", false, revoked)
	w := newWorld(t, a, cfg, false)
	for i, tc := range []struct {
		file, content, logs string
	}{
		{"server.pem", "rubbish", "failed to find any PEM data in certificate input"},
		{"server-key.pem", string(must(os.ReadFile(a.file("good-key.pem")))(t)), "private key does not match public key"},
		{"ca.pem", "", "file is empty"},
		{"ca.pem", "rubbish", "no certificate in PEM form"},
		{"crl.der", "rubbish", "malformed"},
		{"crl.der", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "no revocation list"},
		{"crl.der", "gone", "no such file"},
	} {
		name := a.file(tc.file)
		rename(t, name, name+".kept")
		if tc.content != "gone" {
			if err := os.WriteFile(name, []byte(tc.content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			w.lookNow()
			if _, err := w.talk(a.trusts(good)); err != nil {
				t.Errorf("%+v: %v", tc, err)
			}
		}
		if _, err := w.talk(a.trusts(revoked)); err == nil {
			t.Errorf("%+v: a revoked certificate comes in", tc)
		}
		lines := w.newLines("cannot reload TLS files; those read before stay in force")
		if len(lines) != 1 || !strings.Contains(fmt.Sprint(lines[0].ContextMap()["error"]), tc.logs) {
			t.Errorf("%+v: %d lines, %v", tc, len(lines), lines)
		}
		if n := w.store.failures.Load(); n != uint64(i+1) {
			t.Errorf("%d failures", n)
		}
		rename(t, name+".kept", name)
		w.lookNow()
		w.store.current()
	}
	if n := w.store.reloads.Load(); n != 0 {
		t.Errorf("%d reloads, but nothing had changed", n)
	}
}

// TestReloadThroughSymlinks replaces files as a mounted secret is: the link that
// the path goes through is moved to another folder.
func TestReloadThroughSymlinks(t *testing.T) {
	a := newAuthority(t, "ours")
	good := a.issue("good", nil)
	fill := func(version string) tls.Certificate {
		cert := a.issue("server", nil)
		dir := a.file(version)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		rename(t, a.file("server.pem"), filepath.Join(dir, "tls.crt"))
		rename(t, a.file("server-key.pem"), filepath.Join(dir, "tls.key"))
		if err := os.Symlink(version, a.file("..data.new")); err != nil {
			t.Fatal(err)
		}
		rename(t, a.file("..data.new"), a.file("..data"))
		return cert
	}
	fill("v1")
	cfg := a.config()
	cfg.CertFile, cfg.KeyFile = a.file("..data/tls.crt"), a.file("..data/tls.key")
	w := newWorld(t, a, cfg, false)
	want := fill("v2")
	w.lookNow()
	conn, err := w.talk(a.trusts(good))
	if err != nil || conn.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(want.Leaf.SerialNumber) != 0 {
		t.Errorf("the old one is still presented: %v", err)
	}
}

// TestResumptionIsNoWayAround takes a session ticket before a certificate loses
// its trust, and tries it after that.
func TestResumptionIsNoWayAround(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, how := range []string{"revoked", "CA taken out"} {
			t.Run(fmt.Sprintf("%s, %s", tls.VersionName(version), how), func(t *testing.T) {
				a, other := newAuthority(t, "ours"), newAuthority(t, "next")
				a.issue("server", nil)
				good := a.issue("good", nil)
				cfg := a.config()
				cfg.CRLFile = a.revoke("crl.der", false)
				w := newWorld(t, a, cfg, false)
				client := a.trusts(good)
				client.MaxVersion = version
				client.ClientSessionCache = tls.NewLRUClientSessionCache(4)
				for i := range 2 {
					conn, err := w.talk(client)
					if err != nil {
						t.Fatal(err)
					}
					if conn.ConnectionState().DidResume != (i == 1) {
						t.Fatal("the test resumes nothing")
					}
				}
				if how == "revoked" {
					a.revoke("crl.der", false, good)
				} else {
					put(t, a.file("ca.pem"), "CERTIFICATE", other.cert.Raw)
				}
				w.lookNow()
				if _, err := w.talk(client); err == nil {
					t.Error("came in by its old session")
				}
			})
		}
	}
}

func TestOpenRefusesBrokenFiles(t *testing.T) {
	a := newAuthority(t, "ours")
	a.issue("server", nil)
	for _, tc := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.KeyFile = "" }, "KeyFile and CertFile must both be present"},
		{func(c *Config) { c.ClientCertFile = "x" }, "ClientKeyFile and ClientCertFile must both be present or both absent"},
		{func(c *Config) { c.AllowedCNs, c.AllowedHostnames = []string{"a"}, []string{"b"} }, "mutually exclusive"},
		{func(c *Config) { c.CertFile = a.file("none") }, "no such file"},
		{func(c *Config) { c.TrustedCAFile = a.file("none") }, "no such file"},
		{func(c *Config) { c.CRLFile = a.file("ca.pem") }, "no revocation list"},
		{func(c *Config) { c.ClientCertFile, c.ClientKeyFile = a.file("server.pem"), a.file("ca.pem") }, "found a certificate rather than a key"},
	} {
		cfg := a.config()
		tc.change(&cfg)
		if _, err := Open(cfg, Options{}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%v, want %q", err, tc.want)
		}
	}
}

func TestDialing(t *testing.T) {
	a := newAuthority(t, "ours")
	a.issue("server", nil)
	a.issue("mine", nil)
	cfg := a.config()
	cfg.ClientCertFile, cfg.ClientKeyFile = a.file("mine.pem"), a.file("mine-key.pem")
	w := newWorld(t, a, cfg, true)
	dial := func(s *Store) error {
		w.lookNow()
		conn, err := s.Dial(t.Context(), "tcp", w.lis.Addr().String())
		if err != nil {
			return err
		}
		defer conn.Close()
		return echo(conn)
	}
	if err := dial(w.store); err != nil {
		t.Error(err)
	}
	cfg.CRLFile = a.revoke("crl.der", false, a.issue("server", nil))
	other, err := Open(cfg, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := dial(other); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("dialed a server with a revoked certificate: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	a := newAuthority(t, "ours")
	server := a.issue("server", nil)
	cfg := a.config()
	cfg.CRLFile = a.revoke("crl.der", false)
	w := newWorld(t, a, cfg, false)
	if _, err := w.talk(a.trusts()); err == nil {
		t.Error("accepted without a certificate")
	}
	w.lastRefusal()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(w.store.Collector())
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"quire_tls_not_after_seconds client server server 2": float64(server.Leaf.NotAfter.Unix()),
		"quire_tls_not_after_seconds client ca ours 1":       float64(a.cert.NotAfter.Unix()),
		"quire_tls_not_after_seconds client crl CN=ours 0":   float64(w.store.material.Load().facts[2].ends.Unix()),
		"quire_tls_refused_connections_total client":         1,
		"quire_tls_reloads_total client ok":                  0,
		"quire_tls_evicted_handshakes_total client":          0,
		"quire_tls_handshakes_pending client":                0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
}

// TestReloadUnderLoad replaces files all the time while clients connect.
func TestReloadUnderLoad(t *testing.T) {
	a := newAuthority(t, "ours")
	a.issue("server", nil)
	good := a.issue("good", nil)
	cfg := a.config()
	cfg.CRLFile = a.revoke("crl.der", false)
	w := newWorld(t, a, cfg, false)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				conn, err := tls.Dial("tcp", w.lis.Addr().String(), a.trusts(good))
				if err == nil {
					err = echo(conn)
					_ = conn.Close()
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for ctx.Err() == nil {
		a.issue("server", nil)
		a.revoke("crl.der", false)
		w.lookNow()
		time.Sleep(time.Millisecond)
	}
	clients.Wait()
	if w.store.reloads.Load() == 0 {
		t.Error("nothing was reloaded")
	}
}

func TestSelfSign(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "fixtures", "client")
	hosts := []string{"127.0.0.1:1", "localhost:2", "localhost:3", "[::1]:4", "sock"}
	if _, err := SelfSign(dir, hosts, 0, zap.NewNop()); err == nil || err.Error() != "selfSignedCertValidity is invalid,it should be greater than 0" {
		t.Errorf("no validity: %v", err)
	}
	cfg, err := SelfSign(dir, hosts, 2, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if cfg.CertFile != filepath.Join(dir, "cert.pem") || cfg.KeyFile != filepath.Join(dir, "key.pem") {
		t.Errorf("%+v", cfg)
	}
	if info := must(os.Stat(cfg.KeyFile))(t); info.Mode().Perm() != 0o600 {
		t.Errorf("key file has mode %v", info.Mode())
	}
	first := must(tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile))(t).Leaf
	if !first.IPAddresses[0].Equal(net.IPv4(127, 0, 0, 1)) || len(first.IPAddresses) != 2 || !slices.Equal(first.DNSNames, []string{"localhost"}) {
		t.Errorf("made for %v, %v", first.IPAddresses, first.DNSNames)
	}
	if left := time.Until(first.NotAfter); left > 2*yearHours || left < 2*yearHours-time.Hour {
		t.Errorf("valid for %v", left)
	}
	again := func() *x509.Certificate {
		if _, err := SelfSign(dir, hosts, 2, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
		return must(tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile))(t).Leaf
	}
	if !again().Equal(first) {
		t.Error("not used again")
	}
	if err := os.Remove(cfg.KeyFile); err != nil {
		t.Fatal(err)
	}
	if again().Equal(first) {
		t.Error("half of a pair was used again")
	}
	certPEM, keyPEM, err := generate(hosts, time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.CertFile, certPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cfg.KeyFile, keyPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	if time.Now().After(again().NotAfter) {
		t.Error("an expired certificate was used again")
	}
	// It can be the authority that a client is given.
	s, err := Open(cfg, Options{Endpoint: "client"})
	if err != nil {
		t.Fatal(err)
	}
	plain := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	lis := s.Listener(plain, false)
	defer lis.Close()
	go func() { _, _ = lis.Accept() }()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must(os.ReadFile(cfg.CertFile))(t))
	conn, err := tls.Dial("tcp", plain.Addr().String(), &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestNames(t *testing.T) {
	ids, err := CipherSuites([]string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305", "TLS_RSA_WITH_RC4_128_SHA"})
	want := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_RSA_WITH_RC4_128_SHA}
	if err != nil || !slices.Equal(ids, want) {
		t.Errorf("%v, %v", ids, err)
	}
	if _, err := CipherSuites([]string{"x"}); err == nil || err.Error() != `unexpected TLS cipher suite "x"` {
		t.Error(err)
	}
	if _, err := Version("TLS1.1"); err == nil || err.Error() != `unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)` {
		t.Error(err)
	}
	if v, err := Version("TLS1.3"); err != nil || v != tls.VersionTLS13 {
		t.Error(v, err)
	}
}

func TestCheckSAN(t *testing.T) {
	loopback := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}
	for _, tc := range []struct {
		name string
		cert x509.Certificate
		from net.Addr
		want string
	}{
		{"no names", x509.Certificate{}, loopback, ""},
		{"address", x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, loopback, ""},
		{"another address", x509.Certificate{IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}}, loopback, "x509: certificate is valid for 10.0.0.1, not 127.0.0.1"},
		{"name that resolves to the address", x509.Certificate{DNSNames: []string{"localhost"}}, loopback, ""},
		{"another address, but the name", x509.Certificate{IPAddresses: []net.IP{net.IPv4(10, 0, 0, 1)}, DNSNames: []string{"localhost"}}, loopback, ""},
		{"another name", x509.Certificate{DNSNames: []string{"nobody.invalid"}}, loopback, `tls: "127.0.0.1" does not match any of DNSNames ["nobody.invalid"]`},
		{"socket file", x509.Certificate{DNSNames: []string{"nobody.invalid"}}, &net.UnixAddr{Name: "s", Net: "unix"}, ""},
	} {
		err := checkSAN(t.Context(), &tc.cert, tc.from)
		if (tc.want == "") != (err == nil) || err != nil && !strings.HasPrefix(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}
