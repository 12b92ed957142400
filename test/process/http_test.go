package process

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"quire/test/harness"
)

// ask makes a plain request and returns the answer with its body.
func ask(t *testing.T, method, url string, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	check(t, err)
	for k, v := range header {
		req.Header.Set(k, v)
	}
	req.Host = header["Host"]
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp, string(body)
}

func TestHostWhitelist(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--host-whitelist", "localhost,127.0.0.1")
	url := "http://" + s.Endpoint + "/version"
	if resp, _ := ask(t, "GET", url, nil); resp.StatusCode != 200 {
		t.Errorf("known host: %s", resp.Status)
	}
	resp, body := ask(t, "GET", url, map[string]string{"Host": "evil.example:80"})
	if resp.StatusCode != http.StatusMisdirectedRequest || !strings.Contains(body, `e.g. etcd --host-whitelist "evil.example"`) {
		t.Errorf("unknown host: %s, %q", resp.Status, body)
	}
	if !s.Log.Wait("rejecting HTTP request to prevent DNS rebinding attacks", readyLimit) {
		t.Error("nothing is said of it")
	}
	if _, err := s.Client(t).Put(harness.Context(t), "k", "v"); err != nil {
		t.Errorf("gRPC: %v", err)
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	some, all := harness.Start(t, "--cors", "http://a.example:80,http://b.example:80"), harness.Start(t)
	for _, tt := range []struct {
		s              *harness.Server
		method, origin string
		want           string
	}{
		{all, "GET", "http://anybody.example:80", "*"},
		{some, "GET", "http://a.example:80", "http://a.example:80"},
		{some, "GET", "http://c.example:80", ""},
		{some, "OPTIONS", "http://b.example:80", "http://b.example:80"},
	} {
		resp, body := ask(t, tt.method, "http://"+tt.s.Endpoint+"/version", map[string]string{"Origin": tt.origin})
		if resp.StatusCode != 200 || resp.Header.Get("Access-Control-Allow-Origin") != tt.want || (body == "") != (tt.method == "OPTIONS") {
			t.Errorf("%s from %s: %s, %v, %q", tt.method, tt.origin, resp.Status, resp.Header, body)
		}
		if tt.want != "" && resp.Header.Get("Access-Control-Allow-Headers") != "accept, content-type, authorization" {
			t.Errorf("%v", resp.Header)
		}
	}
}

func TestSplitPorts(t *testing.T) {
	t.Parallel()
	web, metrics := harness.FreePort(t), harness.FreePort(t)
	s := harness.Start(t, "--listen-client-http-urls", "http://"+web, "--listen-metrics-urls", "http://"+metrics)
	for _, tt := range []struct {
		url  string
		want int // 0: no answer
	}{
		{web + "/version", 200}, {web + "/health", 200}, {web + "/metrics", 200}, {web + "/debug/vars", 200},
		{metrics + "/metrics", 200}, {metrics + "/health", 200}, {metrics + "/livez", 200}, {metrics + "/readyz", 200}, {metrics + "/version", 404},
		{s.Endpoint + "/version", 0},
	} {
		client := &http.Client{Timeout: 5 * time.Second}
		resp, err := client.Get("http://" + tt.url)
		got := 0
		if err == nil {
			resp.Body.Close()
			got = resp.StatusCode
		}
		if got != tt.want {
			t.Errorf("%s: %d, %v, want %d", tt.url, got, err, tt.want)
		}
	}
	_, err := s.Client(t).Put(harness.Context(t), "k", "v")
	check(t, err)
	conn, err := net.Dial("tcp", web) // gRPC is not served there
	check(t, err)
	defer conn.Close()
	check(t, conn.SetDeadline(time.Now().Add(5*time.Second)))
	_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
	check(t, err)
	if answer, _ := io.ReadAll(conn); strings.Contains(string(answer), "200") {
		t.Errorf("gRPC on the HTTP port is answered: %q", answer)
	}
}

func TestDebugEndpoints(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		flags []string
		want  map[string]int
	}{
		{"as it is", nil, map[string]int{"/debug/vars": 200, "/debug/pprof/": 404, "/debug/requests": 404, "/debug/loglevel": 404}},
		{"pprof", []string{"--enable-pprof"}, map[string]int{"/debug/vars": 200, "/debug/pprof/": 200, "/debug/pprof/heap": 200, "/debug/pprof/cmdline": 200, "/debug/requests": 404}},
		{"debug", []string{"--log-level", "debug"}, map[string]int{"/debug/pprof/": 200, "/debug/requests": 200, "/debug/events": 200, "/debug/loglevel": 404}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, tt.flags...)
			for path, want := range tt.want {
				if resp, _ := ask(t, "GET", "http://"+s.Endpoint+path, nil); resp.StatusCode != want {
					t.Errorf("%s: %s, want %d", path, resp.Status, want)
				}
			}
		})
	}
}

// TestSecretsStayOut looks for passwords and tokens wherever the process writes.
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	s := harness.StartConfig(t, harness.Config{
		Flags: []string{"--log-level", "debug", "--discovery-password=hunter2", "--enable-pprof"},
		Env:   []string{"ETCD_DISCOVERY_USER=me:hunter3"},
	})
	for _, args := range [][]string{
		{"user", "add", "root:hunter4"}, {"user", "grant-role", "root", "root"}, {"auth", "enable"},
		{"--user", "root:hunter4", "put", "k", "v"}, {"--user", "root:hunter5", "put", "k", "v"},
		{"--user", "root:hunter4", "user", "passwd", "root", "--interactive=false"},
	} {
		s.CtlInput(t, "hunter6\n", args...)
	}
	text := s.Log.String()
	for _, path := range []string{"/debug/vars", "/metrics", "/debug/requests"} {
		_, body := ask(t, "GET", "http://"+s.Endpoint+path, nil)
		text += body
	}
	if !harness.IsQuire(t) {
		t.Skip("upstream logs its command line and its environment")
	}
	for n := 2; n <= 6; n++ {
		if secret := fmt.Sprintf("hunter%d", n); strings.Contains(text, secret) {
			i := strings.Index(text, secret)
			t.Errorf("%s is shown: …%s…", secret, text[max(0, i-200):min(len(text), i+50)])
		}
	}
}

// TestFilesArePrivate looks at the modes of what a server makes.
func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--auto-tls")
	err := filepath.WalkDir(s.DataDir, func(path string, d os.DirEntry, err error) error {
		check(t, err)
		info, err := d.Info()
		check(t, err)
		certificate := strings.HasSuffix(path, "cert.pem") // which everybody may see
		if mode := info.Mode().Perm(); mode&0o077 != 0 && !certificate {
			t.Errorf("%s has mode %v", path, mode)
		}
		return nil
	})
	check(t, err)
}

// TestIdleConnections opens thousands that say nothing, or only that they are there.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	s := &secure{Server: harness.Start(t)}
	before := s.rss(t)
	for i := range 5000 {
		conn, err := net.Dial("tcp", s.Endpoint)
		check(t, err)
		defer conn.Close()
		if i%2 == 0 {
			_, err = conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"))
			check(t, err)
		}
	}
	start := time.Now()
	_, err := s.Client(t).Put(harness.Context(t), "k", "v")
	check(t, err)
	if took := time.Since(start); took > 9*time.Second { // those have ten
		t.Errorf("a put among idle connections took %v", took)
	}
	perConn := (s.rss(t) - before) / 5000
	t.Logf("%d KiB a connection", perConn>>10)
	if perConn > 100<<10 {
		t.Errorf("%d KiB a connection", perConn>>10)
	}
}

// TestDescriptorsRunShort lets clients take what they can get: the server keeps enough to go on.
func TestDescriptorsRunShort(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream queues connections instead")
	}
	s := harness.Start(t)
	c := s.Client(t)
	_, err := c.Put(harness.Context(t), "k", "v")
	check(t, err)
	limit := syscall.Rlimit{Cur: 256, Max: 256}
	check(t, prlimit(s.Pid(), &limit))
	for range 600 {
		conn, err := net.Dial("tcp", s.Endpoint)
		check(t, err)
		defer conn.Close()
	}
	if !s.Log.Wait("refusing connections: file descriptors run short", readyLimit) {
		t.Error("nothing is said of it")
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.Pid()))
	check(t, err)
	if len(entries) > 200 {
		t.Errorf("%d of 256 descriptors are taken", len(entries))
	}
	for range 100 {
		_, err = c.Put(harness.Context(t), "k", "v")
		check(t, err)
	}
}

// TestHalfOpenRequests begins requests and does not go on.
func TestHalfOpenRequests(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream waits five minutes")
	}
	s := newSecure(t)
	plain := harness.FreePort(t)
	s.start(t, "--listen-client-urls", "https://"+plain+",http://"+plain, "--advertise-client-urls", "https://"+plain)
	begun := map[string]net.Conn{}
	for _, text := range []string{"P", "PRI * HTTP/2.0\r\n", "GET /health HTTP/1.1\r\nHost: x", "POST"} {
		conn, err := net.Dial("tcp", plain)
		check(t, err)
		defer conn.Close()
		_, err = conn.Write([]byte(text))
		check(t, err)
		begun[text] = conn
		secured, err := tls.Dial("tcp", plain, s.tls())
		check(t, err)
		defer secured.Close()
		_, err = secured.Write([]byte(text))
		check(t, err)
		begun["TLS "+text] = secured
	}
	deadline := time.Now().Add(15 * time.Second)
	for text, conn := range begun {
		check(t, conn.SetReadDeadline(deadline))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q is still waited for", text)
		}
	}
}
