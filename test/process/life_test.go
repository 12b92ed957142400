package process

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"quire/test/harness"
)

const readyLimit = time.Minute

func TestDefaultDataDirectory(t *testing.T) {
	t.Parallel()
	client, peer := "http://"+harness.FreePort(t), "http://"+harness.FreePort(t)
	s := harness.StartConfig(t, harness.Config{BareArgs: true, Flags: []string{"--name", "me", "--listen-client-urls", client,
		"--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "me=" + peer}})
	info, err := os.Stat(filepath.Join(s.WorkDir, "me.etcd"))
	check(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestEmptyDataDirectoryMayExist(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	check(t, os.Chmod(dir, 0o700))
	s := harness.StartConfig(t, harness.Config{DataDir: dir})
	_, err := s.Client(t).Put(harness.Context(t), "k", "v")
	check(t, err)
}

func TestWithoutHome(t *testing.T) {
	t.Parallel()
	harness.StartConfig(t, harness.Config{Env: []string{"HOME="}})
}

func TestEveryLogLineIsJSONAndNoneAnError(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c, ctx := s.Client(t), harness.Context(t)
	_, err := c.Put(ctx, "k", "v")
	check(t, err)
	_, err = c.Compact(ctx, 2)
	check(t, err)
	_, err = c.Defragment(ctx, s.Endpoint)
	check(t, err)
	c.Close()
	s.Stop(t)
	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d{4})$`)
	for i, line := range s.Log.Lines() {
		for _, field := range []string{"level", "ts", "caller", "msg"} {
			if line[field] == nil {
				t.Errorf("line %d has no %s: %v", i, field, line)
			}
		}
		if ts := fmt.Sprint(line["ts"]); !stamp.MatchString(ts) {
			t.Errorf("line %d: time %q", i, ts)
		}
		// Upstream sees its own version as an error for a moment of its first start.
		if level := line["level"]; level == "error" && harness.IsQuire(t) || level == "fatal" || level == "panic" {
			t.Errorf("line %d: %v", i, line)
		}
	}
}

func TestLinesThatOthersLookFor(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c, ctx := s.Client(t), harness.Context(t)
	_, err := c.Put(ctx, "k", "v")
	check(t, err)
	_, err = c.Compact(ctx, 2)
	check(t, err)
	for _, line := range []string{"serving client traffic", s.Endpoint, "finished scheduled compaction"} {
		if !s.Log.Wait(line, 5*time.Second) {
			t.Errorf("no line with %q", line)
		}
	}
}

func TestLogSettings(t *testing.T) {
	t.Parallel()
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		path := filepath.Join(t.TempDir(), "log")
		s := harness.Start(t, "--log-outputs", "stderr,"+path)
		text, err := os.ReadFile(path)
		check(t, err)
		if !strings.Contains(string(text), "ready to serve client requests") || !strings.Contains(s.Log.String(), "ready to serve client requests") {
			t.Error("the log is not in both places")
		}
	})
	t.Run("console", func(t *testing.T) {
		t.Parallel()
		s := harness.Start(t, "--log-format", "console")
		if strings.Contains(s.Log.String(), `"msg":"ready`) {
			t.Error("the console's format is JSON")
		}
	})
	t.Run("level", func(t *testing.T) {
		t.Parallel()
		s := harness.Launch(t, harness.Config{Flags: []string{"--log-level", "error"}})
		c := s.Client(t)
		ctx, cancel := context.WithTimeout(t.Context(), readyLimit)
		defer cancel()
		_, err := c.Put(ctx, "k", "v")
		check(t, err)
		for _, line := range s.Log.Lines() {
			if line["level"] == "info" {
				t.Errorf("among errors only: %v", line)
			}
		}
	})
}

func TestStopIsCleanAndFast(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		for _, watching := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v watching %v", sig, watching), func(t *testing.T) {
				t.Parallel()
				s := harness.Start(t)
				c, ctx := s.Client(t), harness.Context(t)
				_, err := c.Put(ctx, "k", "v")
				check(t, err)
				limit := 5 * time.Second // without a wait for open streams
				if watching {
					c.Watch(ctx, "k")
					_, err := c.Put(ctx, "k", "v")
					check(t, err)
					if !harness.IsQuire(t) {
						limit = 10 * time.Second // upstream waits seven seconds for open streams
					}
				}
				start := time.Now()
				check(t, s.Signal(sig))
				s.Exit(t)
				if took := time.Since(start); took > limit {
					t.Errorf("it took %v", took)
				}
				if got := s.EndedBy(); got != sig {
					t.Errorf("it ended by %v", got)
				}
			})
		}
	}
}

// TestReadyNoLaterThanUpstream takes the best of some starts in turn: the machine
// may be busy.
func TestReadyNoLaterThanUpstream(t *testing.T) {
	if !harness.IsQuire(t) {
		t.Skip("it would compare upstream with itself")
	}
	best := map[string]time.Duration{}
	for range 3 {
		for _, binary := range []string{harness.Binary(t), harness.Upstream(t)} {
			start := time.Now()
			s := harness.StartConfig(t, harness.Config{Binary: binary})
			took := time.Since(start)
			s.Kill()
			if b, ok := best[binary]; !ok || took < b {
				best[binary] = took
			}
		}
	}
	ours, theirs := best[harness.Binary(t)], best[harness.Upstream(t)]
	t.Logf("ready after %v, upstream after %v", ours, theirs)
	if ours > 2*theirs {
		t.Errorf("ready after %v, upstream after %v", ours, theirs)
	}
}

func TestListenerThatCannotBeOpenedEndsTheProcess(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"--listen-client-urls", "--listen-peer-urls"} {
		t.Run(flag, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			check(t, err)
			defer l.Close()
			s := harness.Launch(t, harness.Config{Flags: []string{flag, "http://" + l.Addr().String()}})
			if code := s.Exit(t); code == 0 {
				t.Error("exit code 0")
			}
			if text := s.Log.String(); !strings.Contains(text, "address already in use") {
				t.Errorf("it does not say why: %.500s", text)
			}
		})
	}
}

func TestSeveralListenersAndAUnixSocket(t *testing.T) {
	t.Parallel()
	second := harness.FreePort(t)
	first := harness.FreePort(t)
	s := harness.Start(t, "--listen-client-urls", "http://"+first+",http://"+second+",unix://sock.client:0")
	put := func(target string) {
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
		check(t, err)
		defer conn.Close()
		_, err = pb.NewKVClient(conn).Put(harness.Context(t), &pb.PutRequest{Key: []byte("k")})
		check(t, err)
	}
	put(first)
	put(second)
	put("unix:" + filepath.Join(s.WorkDir, "sock.client:0"))
}

func TestMetricsListener(t *testing.T) {
	t.Parallel()
	address := harness.FreePort(t)
	harness.Start(t, "--listen-metrics-urls", "http://"+address)
	for path, want := range map[string]string{"/metrics": "etcd_server_has_leader 1", "/health": `{"health":"true","reason":""}`} {
		if _, body := page(t, address, path); !strings.Contains(body, want) {
			t.Errorf("%s: %.300s", path, body)
		}
	}
}

func TestPprofOnlyWhenAskedFor(t *testing.T) {
	t.Parallel()
	for _, enabled := range []bool{false, true} {
		s := harness.Start(t, fmt.Sprintf("--enable-pprof=%v", enabled))
		code, _ := page(t, s.Endpoint, "/debug/pprof/cmdline")
		if (code == http.StatusOK) != enabled {
			t.Errorf("enabled %v: status %d", enabled, code)
		}
	}
}

func page(t *testing.T, address, path string) (code int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + address + path)
	check(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp.StatusCode, string(text)
}

func TestMemoryLockAndDefragmentationAtTheStart(t *testing.T) {
	t.Parallel()
	s := harness.Start(t, "--memory-mlock", "--bootstrap-defrag-threshold-megabytes", "1")
	_, err := s.Client(t).Put(harness.Context(t), "k", "v")
	check(t, err)
	if !s.Log.Wait("Skipping defragmentation", readyLimit) {
		t.Error("nothing is said of the defragmentation")
	}
	locked := s.Log.Wait(`"memory is locked"`, time.Second) || s.Log.Wait("cannot lock memory", time.Second)
	if harness.IsQuire(t) && !locked {
		t.Error("nothing is said of the memory")
	}
}
