package process

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/net/http2"

	"quire/test/harness"
)

// secure is a server whose client port speaks TLS, with the authority that it trusts.
type secure struct {
	*harness.Server
	ca      *harness.CA
	client  harness.Pair // accepted
	certs   []string     // flags that name the server's files
	refused string       // how the log tells of a refused connection
}

// newSecure issues what a server needs; start starts it.
func newSecure(t *testing.T) *secure {
	t.Helper()
	ca := harness.NewCA(t, "clients")
	server := ca.Issue(t, "server", harness.Subject{CN: "server", DNSNames: []string{"localhost"}})
	return &secure{
		ca: ca, client: ca.Issue(t, "client", harness.Subject{CN: "alice"}),
		certs:   []string{"--cert-file", server.CertFile, "--key-file", server.KeyFile},
		refused: "rejected connection on client endpoint",
	}
}

// start listens for clients on https at Endpoint, unless flags say otherwise.
func (s *secure) start(t *testing.T, flags ...string) {
	t.Helper()
	s.Server = harness.StartConfig(t, harness.Config{Secure: true, Flags: append(s.certs, flags...)})
}

// tls is a client's configuration that presents the pair, if any, whether it is asked for or not.
func (s *secure) tls(pair ...harness.Pair) *tls.Config {
	cfg := &tls.Config{RootCAs: s.ca.Pool(), ServerName: "localhost"}
	if len(pair) > 0 {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair[0].TLS, nil }
	}
	return cfg
}

// get asks for a page by HTTP.
func get(t *testing.T, url string, cfg *tls.Config) (string, error) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}, Timeout: 5 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// put writes a key with a client of its own.
func put(t *testing.T, endpoint string, cfg *tls.Config) error {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: cfg, DialTimeout: 2 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err = c.Put(ctx, "k", "v")
	return err
}

// TestTLSRefusals asks every kind of listener in every wrong way. A revoked certificate on the gRPC port beside an
// HTTP port of its own is GHSA-3wh4.
func TestTLSRefusals(t *testing.T) {
	t.Parallel()
	s, other := newSecure(t), harness.NewCA(t, "others")
	revoked := s.ca.Issue(t, "revoked", harness.Subject{CN: "bob"})
	elsewhere := s.ca.Issue(t, "elsewhere", harness.Subject{CN: "alice", IPs: []string{"10.9.9.9"}})
	httpOnly, metrics, both := harness.FreePort(t), harness.FreePort(t), newSecure(t)
	flags := []string{"--trusted-ca-file", s.ca.File(), "--client-crl-file", s.ca.Revoke(t, "crl", revoked), "--listen-metrics-urls", "https://" + metrics}
	s.start(t, append(flags, "--listen-client-http-urls", "https://"+httpOnly)...)
	both.ca, both.certs = s.ca, s.certs
	flags[len(flags)-1] = "https://" + harness.FreePort(t)
	both.start(t, append(flags, "--trusted-ca-file", s.ca.File())...)

	listeners := []struct {
		name string
		of   *secure
		ask  func(cfg *tls.Config) error
		addr string
		san  bool // a client's certificate must name the client's address
	}{
		{"gRPC", both, func(cfg *tls.Config) error { return put(t, "https://"+both.Endpoint, cfg) }, both.Endpoint, false},
		{"HTTP beside gRPC", both, func(cfg *tls.Config) error { _, err := get(t, "https://"+both.Endpoint+"/version", cfg); return err }, both.Endpoint, false},
		{"gRPC alone", s, func(cfg *tls.Config) error { return put(t, "https://"+s.Endpoint, cfg) }, s.Endpoint, false},
		{"HTTP alone", s, func(cfg *tls.Config) error { _, err := get(t, "https://"+httpOnly+"/version", cfg); return err }, httpOnly, false},
		{"metrics", s, func(cfg *tls.Config) error { _, err := get(t, "https://"+metrics+"/metrics", cfg); return err }, metrics, true},
	}
	old := s.tls(s.client)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	cases := []struct {
		name string
		cfg  *tls.Config
		says string // in the log
		ok   func(san bool) bool
	}{
		{"good", s.tls(s.client), "", func(bool) bool { return true }},
		{"no certificate", s.tls(), "client didn't provide a certificate", nil},
		{"expired", s.tls(s.ca.Issue(t, "expired", harness.Subject{Expired: true})), "certificate has expired", nil},
		{"another authority's", s.tls(other.Issue(t, "eve", harness.Subject{CN: "eve"})), "unknown authority", nil},
		{"revoked", s.tls(revoked), "revoked", nil},
		{"another address", s.tls(elsewhere), "10.9.9.9", func(san bool) bool { return !san }},
		{"TLS 1.1", old, "unsupported versions", nil},
	}
	for _, l := range listeners {
		for _, c := range cases {
			t.Run(l.name+"/"+c.name, func(t *testing.T) {
				err := l.ask(c.cfg)
				if want := c.ok != nil && c.ok(l.san); (err == nil) != want {
					t.Fatalf("accepted: %v, want %v: %v", err == nil, want, err)
				}
				// Upstream's gRPC server shakes hands by itself where it is alone, and logs nothing.
				if err != nil && (harness.IsQuire(t) || l.name != "gRPC alone") && !l.of.Log.Wait(c.says, readyLimit) {
					t.Errorf("the log does not say %q", c.says)
				}
			})
		}
		t.Run(l.name+"/no TLS", func(t *testing.T) {
			conn, err := net.Dial("tcp", l.addr)
			check(t, err)
			defer conn.Close()
			check(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
			_, err = conn.Write([]byte("GET /version HTTP/1.1\r\nHost: x\r\n\r\n"))
			check(t, err)
			if answer, _ := io.ReadAll(conn); strings.Contains(string(answer), "200 OK") {
				t.Errorf("answered in plain text: %q", answer)
			}
		})
	}
	if harness.IsQuire(t) {
		for _, l := range both.Log.Lines() {
			if l["msg"] == both.refused && l["remote-addr"] == nil {
				t.Errorf("no address in %v", l)
			}
		}
	}
}

func TestClientCertificateNeedNotBeShown(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	s.start(t)
	check(t, put(t, "https://"+s.Endpoint, s.tls()))
	check(t, put(t, "https://"+s.Endpoint, s.tls(harness.NewCA(t, "others").Issue(t, "eve", harness.Subject{}))))
}

func TestAllowedHostnames(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	good := s.ca.Issue(t, "good", harness.Subject{DNSNames: []string{"good.example"}})
	s.start(t, "--trusted-ca-file", s.ca.File(), "--client-cert-auth", "--client-cert-allowed-hostname", "first.example,good.example")
	check(t, put(t, "https://"+s.Endpoint, s.tls(good)))
	if put(t, "https://"+s.Endpoint, s.tls(s.client)) == nil {
		t.Error("a certificate of another name is accepted")
	}
	if !s.Log.Wait("client certificate authentication failed", readyLimit) {
		t.Error("the log does not tell")
	}
}

// TestOnePortForAll asks one port in every way that upstream knows.
func TestOnePortForAll(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	endpoint := harness.FreePort(t)
	urls := "http://" + endpoint + ",https://" + endpoint
	s.start(t, "--listen-client-urls", urls, "--advertise-client-urls", urls)
	check(t, put(t, "https://"+endpoint, s.tls()))
	check(t, put(t, "http://"+endpoint, nil))
	for _, scheme := range []string{"http", "https"} {
		body, err := get(t, scheme+"://"+endpoint+"/version", s.tls())
		if err != nil || !strings.Contains(body, "etcdserver") {
			t.Errorf("%s: %q, %v", scheme, body, err)
		}
	}
	for name, transport := range map[string]http.RoundTripper{
		"HTTP/2 by choice": &http.Transport{TLSClientConfig: s.tls(), ForceAttemptHTTP2: true},
		"HTTP/2 alone":     &http2.Transport{TLSClientConfig: s.tls()},
	} {
		for range 3 { // on one connection
			resp, err := (&http.Client{Transport: transport}).Get("https://" + endpoint + "/version")
			if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if resp.ProtoMajor != 2 || !strings.Contains(string(body), "etcdserver") {
				t.Errorf("%s: %s %q", name, resp.Proto, body)
			}
		}
	}
	for _, msg := range []string{"serving client traffic insecurely; this is strongly discouraged!", "serving client traffic securely"} {
		if !s.Log.Wait(msg, readyLimit) {
			t.Errorf("no line %q", msg)
		}
	}
}

// TestGRPCAmongHTTP sends gRPC by a client that could have asked for anything.
func TestGRPCAmongHTTP(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	s.start(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.tls(), ForceAttemptHTTP2: true}}
	for range 3 {
		// An empty Status request: a frame of five bytes.
		req, err := http.NewRequest(http.MethodPost, "https://"+s.Endpoint+"/etcdserverpb.Maintenance/Status", strings.NewReader("\x00\x00\x00\x00\x00"))
		check(t, err)
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
		resp, err := client.Do(req)
		check(t, err)
		body, err := io.ReadAll(resp.Body)
		check(t, err)
		resp.Body.Close()
		if resp.Trailer.Get("Grpc-Status") != "0" || len(body) < 10 {
			t.Fatalf("%s, trailer %v, body %q", resp.Status, resp.Trailer, body)
		}
		resp, err = client.Get("https://" + s.Endpoint + "/version")
		check(t, err)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Fatalf("then HTTP: %s", resp.Status)
		}
	}
}

func TestReloadOfCertificates(t *testing.T) {
	t.Parallel()
	s, next := newSecure(t), harness.NewCA(t, "next")
	late := next.Issue(t, "late", harness.Subject{CN: "late"})
	s.start(t, "--trusted-ca-file", s.ca.File(), "--client-crl-file", s.ca.Revoke(t, "crl"))
	url := "https://" + s.Endpoint
	long, err := clientv3.New(clientv3.Config{Endpoints: []string{url}, TLS: s.tls(s.client), Logger: zap.NewNop()})
	check(t, err)
	defer long.Close()
	_, err = long.Put(harness.Context(t), "k", "v")
	check(t, err)

	renewed := s.ca.Issue(t, "server", harness.Subject{CN: "server", DNSNames: []string{"localhost"}})
	eventually(t, "the new certificate is shown", func() bool {
		conn, err := tls.Dial("tcp", s.Endpoint, s.tls(s.client))
		if err != nil {
			return false
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Cmp(renewed.Cert.SerialNumber) == 0
	})
	s.ca.Revoke(t, "crl", s.client)
	eventually(t, "a revoked certificate is refused", func() bool { return put(t, url, s.tls(s.client)) != nil })
	s.ca.Revoke(t, "crl")
	eventually(t, "a certificate that is no longer revoked is accepted", func() bool { return put(t, url, s.tls(s.client)) == nil })
	if harness.IsQuire(t) { // upstream reads the CA once
		bundle, err := os.ReadFile(s.ca.File())
		check(t, err)
		more, err := os.ReadFile(next.File())
		check(t, err)
		harness.Write(t, s.ca.File(), append(bundle, more...))
		eventually(t, "certificates of an added authority are accepted", func() bool { return put(t, url, s.tls(late)) == nil })
		harness.Write(t, s.ca.File(), more)
		eventually(t, "certificates of a removed authority are refused", func() bool { return put(t, url, s.tls(s.client)) != nil })
		harness.Write(t, s.ca.File(), []byte("rubbish"))
		time.Sleep(1100 * time.Millisecond)
		check(t, put(t, url, s.tls(late)))
		if !s.Log.Wait("cannot reload TLS files", readyLimit) {
			t.Error("nothing is said of a broken file")
		}
	}
	_, err = long.Put(harness.Context(t), "k", "v")
	check(t, err)
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Errorf("not so: %s", what)
}

func TestEtcdctlOverTLSAndSockets(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	address := harness.FreePort(t)
	s.start(t, "--listen-client-urls", "https://"+address+",unix://plain.sock,unixs://secure.sock", "--advertise-client-urls", "https://"+address,
		"--trusted-ca-file", s.ca.File())
	files := []string{"--cacert", s.ca.File(), "--cert", s.client.CertFile, "--key", s.client.KeyFile}
	// gRPC takes a socket's path for the name that the certificate must have.
	files = append(files, "--insecure-skip-tls-verify")
	for _, tt := range []struct {
		endpoint string
		files    []string
		ok       bool
	}{
		{"https://" + address, files, true},
		{"https://" + address, nil, false},
		{"http://" + address, nil, false},
		{"unixs://" + filepath.Join(s.WorkDir, "secure.sock"), files, true},
		{"unix://" + filepath.Join(s.WorkDir, "plain.sock"), nil, true},
		{"unix://" + filepath.Join(s.WorkDir, "secure.sock"), nil, false},
	} {
		s.Endpoint = tt.endpoint
		r := s.Ctl(t, append(tt.files, "--command-timeout=2s", "--dial-timeout=2s", "put", "k", "v")...)
		if ok := r.ExitCode == 0 && r.Stdout == "OK\n"; ok != tt.ok {
			t.Errorf("%s with %v: %+v", tt.endpoint, tt.files, r)
		}
	}
}

func TestAutoTLS(t *testing.T) {
	t.Parallel()
	s := &secure{}
	s.start(t, "--auto-tls", "--self-signed-cert-validity", "3")
	file := filepath.Join(s.DataDir, "fixtures", "client", "cert.pem")
	made, err := os.ReadFile(file)
	check(t, err)
	if _, err := os.Stat(filepath.Join(s.DataDir, "fixtures", "client", "key.pem")); err != nil {
		t.Error(err)
	}
	for range 2 {
		r := s.Ctl(t, "--insecure-transport=false", "--insecure-skip-tls-verify", "put", "k", "v")
		if r.Stdout != "OK\n" {
			t.Errorf("%+v", r)
		}
		if r = s.Ctl(t, "--cacert", file, "get", "k"); r.Stdout != "k\nv\n" {
			t.Errorf("%+v", r)
		}
		s.Stop(t)
		s.Restart(t)
		again, err := os.ReadFile(file)
		check(t, err)
		if string(again) != string(made) {
			t.Error("the certificate was made again")
		}
	}
}

func TestTLSInConfigFile(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	client, peer := harness.FreePort(t), harness.FreePort(t)
	file := fmt.Sprintf(`
data-dir: d
listen-client-urls: https://%[1]s
advertise-client-urls: https://%[1]s
listen-peer-urls: http://%[2]s
initial-advertise-peer-urls: http://%[2]s
initial-cluster: default=http://%[2]s
cipher-suites: [TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256]
tls-max-version: TLS1.2
client-transport-security:
  cert-file: %[3]s
  key-file: %[4]s
  client-cert-auth: true
  trusted-ca-file: %[5]s
  auto-tls: false
peer-transport-security:
  cert-file:
  key-file: ""
  client-cert-auth: false
  trusted-ca-file:
  auto-tls: false
`, client, peer, s.certs[1], s.certs[3], s.ca.File())
	harness.StartConfig(t, harness.Config{BareArgs: true, Flags: []string{"--config-file", "c.yaml"}, Files: map[string]string{"c.yaml": file}})
	check(t, put(t, "https://"+client, s.tls(s.client)))
	if put(t, "https://"+client, s.tls()) == nil {
		t.Error("accepted without a certificate")
	}
	conn, err := tls.Dial("tcp", client, s.tls(s.client))
	check(t, err)
	defer conn.Close()
	if st := conn.ConnectionState(); st.Version != tls.VersionTLS12 || st.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 {
		t.Errorf("%s, %s", tls.VersionName(st.Version), tls.CipherSuiteName(st.CipherSuite))
	}
}

func TestWrongTLSSettingsEndTheProcess(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	client := "https://" + harness.FreePort(t)
	urls := []string{"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", "http://" + harness.FreePort(t)}
	for _, tt := range []struct {
		name  string
		flags []string
		says  string
	}{
		{"https without a certificate", urls, "TLS key/cert (--cert-file, --key-file) must be provided for client url " + client + " with HTTPS scheme"},
		{"metrics without a certificate", slices.Concat(urls, []string{"--listen-client-urls", "http://" + harness.FreePort(t), "--listen-metrics-urls", "https://" + harness.FreePort(t)}),
			"client TLS key/cert (--cert-file, --key-file) must be provided for metrics secure url"},
		{"certificate without its key", slices.Concat(urls, s.certs[:2]), "KeyFile and CertFile must both be present"},
		{"no such file", slices.Concat(urls, s.certs[2:], []string{"--cert-file", "none"}), "none: no such file"},
		{"cipher suite", slices.Concat(urls, s.certs, []string{"--cipher-suites", "x"}), `unexpected TLS cipher suite "x"`},
		{"version", slices.Concat(urls, s.certs, []string{"--tls-min-version", "TLS1.1"}), `unexpected TLS version "TLS1.1" (must be one of: TLS1.2, TLS1.3)`},
		{"versions", slices.Concat(urls, s.certs, []string{"--tls-min-version", "TLS1.3", "--tls-max-version", "TLS1.2"}), "min version (TLS1.3) is greater than max version (TLS1.2)"},
		{"cipher suites for TLS 1.3", slices.Concat(urls, s.certs, []string{"--tls-min-version", "TLS1.3", "--cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"}),
			"cipher suites cannot be configured when only TLS1.3 is enabled"},
		{"one port twice", slices.Concat(urls, s.certs, []string{"--listen-client-http-urls", client}), "cannot bind both --listen-client-urls and --listen-client-http-urls on the same url"},
	} { // one after another: they share the ports
		t.Run(tt.name, func(t *testing.T) {
			srv := harness.Launch(t, harness.Config{BareArgs: true, Flags: tt.flags})
			if code := srv.Exit(t); code == 0 {
				t.Error("exit code 0")
			}
			if text := strings.ReplaceAll(srv.Log.String(), `\"`, `"`); !strings.Contains(text, tt.says) {
				t.Errorf("it does not say %q: %.2000s", tt.says, text)
			}
		})
	}
}

// TestHalfOpenHandshakes (GHSA-6vch) leaves thousands of handshakes where they are; others go through.
func TestHalfOpenHandshakes(t *testing.T) {
	t.Parallel()
	s := newSecure(t)
	s.start(t)
	before := s.rss(t)
	for range 3000 {
		conn, err := net.Dial("tcp", s.Endpoint)
		if errors.Is(err, syscall.EMFILE) {
			break
		}
		check(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte{22, 3, 1, 2, 0})
		check(t, err)
	}
	for range 10 {
		start := time.Now()
		check(t, put(t, "https://"+s.Endpoint, s.tls()))
		if took := time.Since(start); took > 9*time.Second { // those have ten
			t.Errorf("a handshake among silent ones took %v", took)
		}
	}
	if grown := s.rss(t) - before; grown > 128<<20 {
		t.Errorf("3000 silent handshakes cost %d MiB", grown>>20)
	}
}

// rss is the resident memory of the process.
func (s *secure) rss(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.Pid()))
	check(t, err)
	var size, resident int64
	_, err = fmt.Sscan(string(text), &size, &resident)
	check(t, err)
	return resident * int64(os.Getpagesize())
}
