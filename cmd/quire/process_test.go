package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be quire itself, so that processes can be
// tested without a build.
func TestMain(m *testing.M) {
	if os.Getenv("QUIRE_TEST_PROCESS") == "1" {
		_ = os.Unsetenv("QUIRE_TEST_PROCESS")
		os.Exit(run(os.Args, os.Environ()))
	}
	os.Exit(m.Run())
}

// process is a running quire with its log.
type process struct {
	cmd *exec.Cmd
	mu  sync.Mutex
	log []string
	end chan struct{} // closed when it has ended
	err error
}

func quire(dir string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "QUIRE_TEST_PROCESS=1")
	return cmd
}

func startQuire(t *testing.T, dir string, args ...string) *process {
	t.Helper()
	p := &process{cmd: quire(dir, args...), end: make(chan struct{})}
	out, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			p.mu.Lock()
			p.log = append(p.log, lines.Text())
			p.mu.Unlock()
		}
		p.err = p.cmd.Wait()
		close(p.end)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.end
	})
	return p
}

func (p *process) lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.log...)
}

// await waits for a log line and returns it.
func (p *process) await(t *testing.T, part string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, l := range p.lines() {
			if strings.Contains(l, part) {
				return l
			}
		}
		select {
		case <-p.end:
			t.Fatalf("ended before it logged %q:\n%s", part, strings.Join(p.lines(), "\n"))
		default:
		}
	}
	t.Fatalf("no line with %q:\n%s", part, strings.Join(p.lines(), "\n"))
	return ""
}

// stop sends a signal and returns the exit code and how long it took.
func (p *process) stop(t *testing.T, sig os.Signal) (code int, took time.Duration) {
	t.Helper()
	start := time.Now()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.end:
	case <-time.After(20 * time.Second):
		t.Fatal("did not stop")
	}
	return p.cmd.ProcessState.ExitCode(), time.Since(start)
}

// anyPort are flags for sockets that collide with nobody.
var anyPort = []string{"--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:0", "--listen-peer-urls=http://127.0.0.1:0"}

// address takes the port out of the line that scripts look at.
func address(t *testing.T, line string) string {
	t.Helper()
	var l struct{ Address, Traffic, Msg, Level string }
	if err := json.Unmarshal([]byte(line), &l); err != nil {
		t.Fatal(err)
	}
	if l.Traffic != "grpc+http" || l.Msg != "serving client traffic insecurely; this is strongly discouraged!" || l.Level != "info" {
		t.Errorf("line %s", line)
	}
	return l.Address
}

func TestProcessServesAndStops(t *testing.T) {
	dir := t.TempDir()
	p := startQuire(t, dir, append(anyPort, "--name=m1", "--enable-pprof")...)
	p.await(t, `"msg":"ready to serve client requests"`)
	addr := address(t, p.await(t, "serving client traffic"))
	resp, err := http.Get("http://" + addr + "/health")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if string(body) != `{"health":"true","reason":""}` {
		t.Errorf("health %s", body)
	}
	info, err := os.Stat(filepath.Join(dir, "m1.etcd"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory: %v, %v", info, err)
	}
	_, took := p.stop(t, syscall.SIGTERM)
	if end := p.cmd.ProcessState.Sys().(syscall.WaitStatus); end.Signal() != syscall.SIGTERM || took > 6*time.Second {
		t.Errorf("%v after %v", p.cmd.ProcessState, took)
	}
	ts := regexp.MustCompile(`^\{"level":"(info|warn)","ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z","(logger|caller)":`)
	for _, l := range p.lines() {
		if !json.Valid([]byte(l)) || !ts.MatchString(l) {
			t.Errorf("line is not etcd's form: %s", l)
		}
	}
}

func TestProcessRestartsWithItsIdentity(t *testing.T) {
	dir := t.TempDir()
	identity := regexp.MustCompile(`"local-member-id":"([0-9a-f]+)","cluster-id":"([0-9a-f]+)"`)
	var first string
	for i, args := range [][]string{
		{"--initial-cluster-token=one"},
		{"--initial-cluster-token=two", "--initial-cluster-state=existing", "--initial-cluster=other=http://h:1"},
	} {
		p := startQuire(t, dir, append(args, anyPort...)...)
		p.await(t, "ready to serve client requests")
		got := identity.FindString(strings.Join(p.lines(), "\n"))
		if i == 0 {
			first = got
		}
		if got == "" || got != first {
			t.Errorf("start %d: %s, before %s", i, got, first)
		}
		sig := []os.Signal{syscall.SIGKILL, syscall.SIGINT}[i] // the flags count at the first start only
		if _, took := p.stop(t, sig); took > 6*time.Second {
			t.Errorf("%v took %v", sig, took)
		}
	}
}

func TestProcessRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	url := "http://" + taken.Addr().String()
	for _, tc := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"flags", []string{"--bogus", "--election-timeout=x"}, 2,
			[]string{"flag provided but not defined: -bogus", `invalid value "x" for flag -election-timeout`}},
		{"port in use", []string{"--listen-client-urls=" + url, "--advertise-client-urls=" + url, "--listen-peer-urls=http://127.0.0.1:0"}, 1,
			[]string{"--listen-client-urls: listen tcp", "address already in use"}},
		{"upstream's proxies", []string{"grpc-proxy", "start"}, 1, []string{`no "grpc-proxy" subcommand`}},
		{"dump without a path", []string{"dump", "wal"}, 1, []string{"usage: quire dump"}},
		{"check of nothing", []string{"check", "nowhere"}, 1, []string{"no such file or directory"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			cmd := quire(dir, tc.args...)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != tc.code {
				t.Errorf("%v", err)
			}
			for _, w := range tc.want {
				if !strings.Contains(string(out), w) {
					t.Errorf("output has no %q:\n%s", w, out)
				}
			}
			if left, _ := os.ReadDir(dir); len(left) > 0 {
				t.Errorf("%v was left behind", left[0])
			}
		})
	}
}

func TestProcessLocksItsDirectory(t *testing.T) {
	dir := t.TempDir()
	args := append([]string{"--data-dir=d"}, anyPort...)
	p := startQuire(t, dir, args...)
	p.await(t, "ready to serve client requests")
	out, _ := quire(dir, args...).CombinedOutput()
	if !strings.Contains(string(out), fmt.Sprint(p.cmd.Process.Pid)) {
		t.Errorf("the second process does not name the first, %d:\n%s", p.cmd.Process.Pid, out)
	}
	out, _ = quire(dir, "check", "d").CombinedOutput()
	if !strings.Contains(string(out), "lock") {
		t.Errorf("check beside a server:\n%s", out)
	}
	p.stop(t, syscall.SIGTERM)
	cmd := quire(dir, "check", "d")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("check of a clean directory: %v\n%s", err, out)
	}
}

func TestProcessVersionAndHelp(t *testing.T) {
	out, err := quire(t.TempDir(), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`^etcd Version: 3\.7\.\d+\nGit SHA: \S+\nGo Version: go\S+\nGo OS/Arch: \w+/\w+\nquire Version: \S+\nquire Disk: (io_uring|pwrite) \(.+\)\n$`)
	if !want.Match(out) {
		t.Errorf("%s", out)
	}
	for _, tc := range []struct{ args, want string }{
		{"help", "quire COMMAND    do something else"},
		{"help flags", "--listen-client-urls 'http://localhost:2379'"},
		{"help security", "Security:\n  --auth-token 'simple'"},
		{"help --data-dir", "  --data-dir ''\n    data directory"},
		{"help check", "quire check DATA_DIR"},
		{"version", "etcd Version: 3.7."},
		{"-h", "--listen-client-urls 'http://localhost:2379'"},
		{"--help", "--listen-client-urls 'http://localhost:2379'"},
	} {
		out, err := quire(t.TempDir(), strings.Fields(tc.args)...).Output()
		if err != nil || !bytes.Contains(out, []byte(tc.want)) {
			t.Errorf("%s: %v\n%s", tc.args, err, out)
		}
	}
	out, err = quire(t.TempDir(), "help", "cert").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("Did you mean --")) {
		t.Errorf("help about nothing: %v\n%s", err, out)
	}
}

// TestCalledEtcd starts the binary by etcd's name.
func TestCalledEtcd(t *testing.T) {
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"--version", 0, "etcd Version: 3.7."},
		{"--help", 0, "  etcd --config-file\n"},
		{"--nope", 2, "flag provided but not defined: -nope\nUsage:\n\n  etcd [flags]\n"},
		{"help", 1, `"msg":"failed to verify flags","error":"\"help\" is not a valid flag"`},
		{"check d", 1, `\"check\" is not a valid flag`},
		{"gateway start", 1, `no "gateway" subcommand`},
		{"--election-timeout 1", 1, `"msg":"failed to verify flags","error":"--election-timeout[1ms] should be`},
	} {
		cmd := quire(t.TempDir(), strings.Fields(tc.args)...)
		cmd.Args[0] = "/usr/bin/etcd"
		out, _ := cmd.CombinedOutput()
		if code := cmd.ProcessState.ExitCode(); code != tc.code || !bytes.Contains(out, []byte(tc.want)) {
			t.Errorf("etcd %s: exit code %d\n%s", tc.args, code, out)
		}
	}
}

func TestLogLevelAtRunTime(t *testing.T) {
	p := startQuire(t, t.TempDir(), append(anyPort, "--enable-pprof")...)
	url := "http://" + address(t, p.await(t, "serving client traffic")) + "/debug/loglevel"
	level := func() string {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return strings.TrimSpace(string(body))
	}
	if got := level(); got != `{"level":"info"}` {
		t.Errorf("at the start: %s", got)
	}
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() { _ = p.cmd.Process.Signal(syscall.SIGUSR1) }, "debug"},
		{func() { _ = p.cmd.Process.Signal(syscall.SIGUSR2) }, "info"},
		{func() { put(t, url, `{"level":"fatal"}`, 200) }, "fatal"},
		{func() { put(t, url, `{"level":"debug"}`, 200) }, "debug"},
		{func() { put(t, url, `{"level":"loud"}`, 400) }, "debug"},
	} {
		step.do()
		want := `{"level":"` + step.want + `"}`
		for range 200 {
			if level() == want {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if got := level(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for _, change := range []string{`"from":"info","to":"debug","by":"SIGUSR1"`, `"from":"debug","to":"info","by":"SIGUSR2"`, `"from":"info","to":"fatal"`, `"from":"fatal","to":"debug"`} {
		p.await(t, `"msg":"log level changed",`+change)
	}
	p.await(t, `"msg":"notifying init daemon"`)
}

func put(t *testing.T, url, body string, want int) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPut, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != want {
		t.Errorf("PUT %s: %s", body, resp.Status)
	}
}

// TestInitSystemIsNotified listens where systemd would, on a socket without a
// file too.
func TestInitSystemIsNotified(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{filepath.Join(dir, "notify"), fmt.Sprintf("@quire-test-%d", os.Getpid())} {
		lis, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", name)
		p := startQuire(t, t.TempDir(), anyPort...)
		for _, want := range []string{"READY=1", "STOPPING=1"} {
			_ = lis.SetReadDeadline(time.Now().Add(20 * time.Second))
			buf := make([]byte, 100)
			n, err := lis.Read(buf)
			if string(buf[:n]) != want {
				t.Errorf("%s: got %q, %v, want %s", name, buf[:n], err, want)
			}
			if want == "READY=1" {
				_ = p.cmd.Process.Signal(syscall.SIGTERM)
			}
		}
		_ = lis.Close()
	}
}

func TestProcessOnSockets(t *testing.T) {
	dir := t.TempDir()
	args := []string{"--listen-client-urls=unix://c.sock,http://127.0.0.1:0", "--advertise-client-urls=unix://c.sock", "--listen-peer-urls=unix://p.sock",
		"--listen-metrics-urls=http://127.0.0.1:0", "--listen-client-http-urls=http://127.0.0.1:0"}
	for range 2 { // the second finds the sockets that the first left behind
		p := startQuire(t, dir, args...)
		l := p.await(t, `"msg":"serving metrics"`)
		addr := regexp.MustCompile(`"address":"([^"]+)"`).FindStringSubmatch(l)[1]
		resp, err := http.Get("http://" + addr + "/metrics")
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("metrics: %v, %v", resp, err)
		}
		_ = resp.Body.Close()
		if conn, err := net.Dial("unix", filepath.Join(dir, "c.sock")); err != nil {
			t.Error(err)
		} else {
			_ = conn.Close()
		}
		p.stop(t, syscall.SIGKILL)
	}
}
