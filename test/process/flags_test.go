package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"quire/test/harness"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// member is the name and the client URLs that a running server gives itself.
func member(t *testing.T, s *harness.Server) (name string, clientURLs []string) {
	t.Helper()
	resp, err := s.Client(t).MemberList(harness.Context(t))
	check(t, err)
	return resp.Members[0].Name, resp.Members[0].ClientURLs
}

func TestVersionFlag(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(harness.Binary(t), "--version").Output()
	check(t, err)
	form := regexp.MustCompile(`^etcd Version: 3\.7\.[0-9]+\nGit SHA: .+\nGo Version: go1\..+\nGo OS/Arch: linux/.+\n`)
	if !form.Match(out) {
		t.Errorf("--version prints %q", out)
	}
	if harness.IsQuire(t) && !regexp.MustCompile(`(?m)^quire Version: .+\nquire Disk: (io_uring|pwrite)`).Match(out) {
		t.Errorf("--version does not tell of quire: %q", out)
	}
}

func TestHelpFlagExitsWithZero(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--help", "-h"} {
		out, err := exec.Command(harness.Binary(t), flag).CombinedOutput()
		check(t, err)
		if !strings.Contains(string(out), "data-dir") {
			t.Errorf("%s prints %q", flag, out)
		}
	}
}

// refusal runs the server with only these flags, in an empty folder, where it must end by itself.
func refusal(t *testing.T, flags ...string) (code int, text string, left []string) {
	t.Helper()
	s := harness.Launch(t, harness.Config{BareArgs: true, Flags: flags})
	code = s.Exit(t)
	entries, err := os.ReadDir(s.WorkDir)
	check(t, err)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	return code, s.Log.String(), left
}

func TestWrongFlagsEndTheProcess(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		flags []string
		code  int
		says  string
	}{
		{"unknown flag", []string{"--nope"}, 2, "flag provided but not defined: -nope"},
		{"flag of the past", []string{"--experimental-initial-corrupt-check"}, 2, "flag provided but not defined: -experimental-initial-corrupt-check"},
		{"number", []string{"--heartbeat-interval=x"}, 2, `invalid value "x" for flag -heartbeat-interval: parse error`},
		{"negative number", []string{"--max-txn-ops=-1"}, 2, `invalid value "-1" for flag -max-txn-ops: parse error`},
		{"url", []string{"--listen-client-urls=bad"}, 2, `invalid value "bad" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: bad`},
		{"choice", []string{"--initial-cluster-state=maybe"}, 2, `invalid value "maybe" for flag -initial-cluster-state`},
		{"duration", []string{"--watch-progress-notify-interval=1"}, 2, `invalid value "1" for flag -watch-progress-notify-interval`},
		{"argument that is no flag", []string{"start"}, 1, `start`},
		{"compaction mode", []string{"--auto-compaction-mode=x"}, 1, "auto-compaction-mode"},
		{"log level", []string{"--log-level=x"}, 0 /* upstream panics */, `"x"`},
		{"election timeout too near", []string{"--heartbeat-interval=100", "--election-timeout=200"}, 1, "should be at least as 5 times as"},
		{"no such file", []string{"--config-file=/nowhere"}, 1, "/nowhere: no such file or directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			code, text, left := refusal(t, tt.flags...)
			if code != tt.code && tt.code != 0 || code == 0 {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.Contains(strings.ReplaceAll(text, `\"`, `"`), tt.says) {
				t.Errorf("it does not say %q: %.500s", tt.says, text)
			}
			if len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
}

func TestMemberThatIsNotInItsClusterEndsTheProcess(t *testing.T) {
	t.Parallel()
	code, text, left := refusal(t, "--name=me", "--initial-cluster=you=http://127.0.0.1:2380")
	if code != 1 || !strings.Contains(text, "initial-cluster") && !strings.Contains(text, "initial cluster") {
		t.Errorf("exit code %d: %.800s", code, text)
	}
	if harness.IsQuire(t) && len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// TestAllFaultsAreReportedAtOnce is quire's own: upstream stops at the first.
func TestAllFaultsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	if !harness.IsQuire(t) {
		t.Skip("upstream names the first fault")
	}
	code, text, left := refusal(t, "--heartbeat-interval=x", "--nope=1", "--listen-client-urls=bad", "--quota-backend-bytes", "z")
	for _, want := range []string{"-heartbeat-interval", "-nope", "-listen-client-urls", "-quota-backend-bytes"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not name %s: %s", want, text)
		}
	}
	if code != 2 || len(left) > 0 {
		t.Errorf("exit code %d, left %v", code, left)
	}
}

func TestFlagForms(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		flags []string
	}{
		{"two dashes and equals", []string{"--name=me", "--pre-vote=true"}},
		{"one dash and a space", []string{"-name", "me", "-pre-vote"}},
		{"the last of two wins", []string{"--name=you", "--name=me", "--pre-vote=false", "--pre-vote"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t, append(tt.flags, "--initial-cluster", "me=http://127.0.0.1:9", "--initial-advertise-peer-urls", "http://127.0.0.1:9")...)
			if name, _ := member(t, s); name != "me" {
				t.Errorf("name %q", name)
			}
		})
	}
}

// TestUpstreamsFlagsAreTaken starts with every kind of setting at once; nothing of it may be unknown.
func TestUpstreamsFlagsAreTaken(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--wal-dir", filepath.Join(t.TempDir(), "wal"), "--snapshot-count", "1000", "--heartbeat-interval", "50",
		"--election-timeout", "500", "--quota-backend-bytes", "1000000000", "--max-request-bytes", "2000000", "--max-txn-ops", "200",
		"--auto-compaction-mode", "revision", "--auto-compaction-retention", "1000", "--log-level", "info", "--logger", "zap", "--log-format", "json",
		"--initial-cluster-token", "token", "--initial-cluster-state", "new", "--enable-pprof", "--metrics", "basic",
		"--max-concurrent-streams", "1000", "--grpc-keepalive-min-time", "5s", "--grpc-keepalive-interval", "2h", "--grpc-keepalive-timeout", "20s",
		"--strict-reconfig-check", "--pre-vote", "--backend-batch-interval", "100ms", "--backend-batch-limit", "1000", "--cors", "*", "--host-whitelist", "*",
		"--warning-apply-duration", "100ms", "--warning-unary-request-duration", "300ms", "--watch-progress-notify-interval", "10m",
		"--compaction-batch-limit", "1000", "--compaction-sleep-interval", "10ms", "--max-wals", "5", "--snapshot-catchup-entries", "100", "--max-learners", "1")
	_, err := s.Client(t).Put(harness.Context(t), "k", "v")
	check(t, err)
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	s := harness.StartConfig(t, harness.Config{
		Flags: []string{"--initial-cluster", "from-env=http://127.0.0.1:9", "--initial-advertise-peer-urls", "http://127.0.0.1:9"},
		Env:   []string{"ETCD_NAME=from-env", "ETCD_MAX_TXN_OPS=1", "ETCD_NOBODY_KNOWS_THIS=1"},
	})
	if name, _ := member(t, s); name != "from-env" {
		t.Errorf("name %q", name)
	}
	warned := false
	for _, line := range s.Log.Lines() {
		warned = warned || (line["level"] == "warn" && line["msg"] == "unrecognized environment variable" &&
			strings.Contains(fmt.Sprint(line["environment-variable"]), "ETCD_NOBODY_KNOWS_THIS"))
	}
	if !warned {
		t.Error("no warning about a variable that nobody knows")
	}
}

func TestWrongValueInTheEnvironmentEndsTheProcess(t *testing.T) {
	t.Parallel()
	s := harness.Launch(t, harness.Config{Env: []string{"ETCD_HEARTBEAT_INTERVAL=x"}})
	if code := s.Exit(t); code == 0 {
		t.Error("exit code 0")
	}
	if text := s.Log.String(); !strings.Contains(text, "ETCD_HEARTBEAT_INTERVAL") {
		t.Errorf("it does not name the variable: %.500s", text)
	}
}

// TestFlagAndVariableForOneSetting: upstream refuses to start; a server that starts says so and takes the flag.
func TestFlagAndVariableForOneSetting(t *testing.T) {
	t.Parallel()
	s := harness.Launch(t, harness.Config{
		Flags: []string{"--name", "from-flag", "--initial-cluster", "from-flag=http://127.0.0.1:9", "--initial-advertise-peer-urls", "http://127.0.0.1:9"},
		Env:   []string{"ETCD_NAME=from-env"},
	})
	ready := s.Log.Wait("ready to serve client requests", readyLimit)
	if !strings.Contains(s.Log.String(), "conflicting environment variable") {
		t.Errorf("nothing is said of the conflict: %.500s", s.Log)
	}
	if !ready {
		if code := s.Exit(t); code == 0 {
			t.Error("exit code 0")
		}
		return
	}
	if name, _ := member(t, s); name != "from-flag" {
		t.Errorf("name %q", name)
	}
}

func TestConfigFileReplacesFlagsAndEnvironment(t *testing.T) {
	t.Parallel()
	client, peer := harness.FreePort(t), harness.FreePort(t)
	file := fmt.Sprintf(`# a comment
name: from-file
data-dir: data-of-file
listen-client-urls: http://%[1]s
advertise-client-urls: http://%[1]s
listen-peer-urls: http://%[2]s
initial-advertise-peer-urls: http://%[2]s
initial-cluster: from-file=http://%[2]s
initial-cluster-token: token
initial-cluster-state: new
max-txn-ops: 2
quota-backend-bytes: 0
wal-dir:
discovery-srv:
client-transport-security:
  cert-file:
  client-cert-auth: false
log-level: info
log-outputs: [stderr]
`, client, peer)
	tests := []struct {
		name string
		cfg  harness.Config
	}{
		{"by flag", harness.Config{Flags: []string{"--config-file", "c.yaml", "--name", "from-flag", "--max-txn-ops", "5"}}},
		{"by variable", harness.Config{Env: []string{"ETCD_CONFIG_FILE=c.yaml", "ETCD_NAME=from-env"}}},
	}
	for _, tt := range tests { // one after another: they share the ports
		t.Run(tt.name, func(t *testing.T) {
			tt.cfg.BareArgs, tt.cfg.Files = true, map[string]string{"c.yaml": file}
			s := harness.StartConfig(t, tt.cfg)
			s.Endpoint = client
			if name, _ := member(t, s); name != "from-file" {
				t.Errorf("name %q", name)
			}
			if _, err := os.Stat(filepath.Join(s.WorkDir, "data-of-file")); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestWrongConfigFileEndsTheProcess(t *testing.T) {
	t.Parallel()
	for name, file := range map[string]string{
		"no yaml":     "a: [",
		"wrong type":  "heartbeat-interval: soon",
		"wrong url":   "listen-client-urls: bad",
		"wrong state": "initial-cluster-state: maybe",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := harness.Launch(t, harness.Config{BareArgs: true, Flags: []string{"--config-file", "c.yaml"}, Files: map[string]string{"c.yaml": file}})
			if code := s.Exit(t); code == 0 {
				t.Errorf("exit code 0: %.500s", s.Log)
			}
		})
	}
}
