package harness

import (
	"crypto/tls"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Limits for what a server is given to do. They are wide, for a busy machine; a test that promises less measures it.
const (
	readyLimit = time.Minute
	stopLimit  = time.Minute
	readyLine  = "ready to serve client requests"
)

// Config says how to start a server. The zero value is the binary under test in a fresh data directory.
type Config struct {
	Binary   string            // path; empty: the one under test
	DataDir  string            // empty: a fresh one
	Flags    []string          // behind the harness's own, so they win
	Env      []string          // "NAME=value", on top of the caller's without ETCD_…
	BareArgs bool              // only Flags: no data directory and no URLs of the harness
	Secure   bool              // the client URL is an https one
	Files    map[string]string // written into the working directory before the start
}

// Server is one server process. After Kill or Stop, Restart runs it again on the same data and ports.
type Server struct {
	Log      *Output // standard error of the running or last process
	Endpoint string  // host:port for clients
	DataDir  string
	WorkDir  string

	name    string // in a cluster
	id      atomic.Uint64
	tls     *tls.Config // of its clients in a cluster; nil: plain text
	binary  string
	args    []string
	env     []string
	process *exec.Cmd
	exited  chan struct{} // closed when the process has been waited for
	silent  bool          // its log is not part of a failed test's output
	keeper  sync.Mutex    // one of Kill, Stop, Restart at a time
}

// Start runs the server under test with these flags and waits until it is ready.
func Start(t testing.TB, flags ...string) *Server {
	t.Helper()
	return StartConfig(t, Config{Flags: flags})
}

// StartUpstream runs upstream etcd with these flags and waits until it is ready.
func StartUpstream(t testing.TB, flags ...string) *Server {
	t.Helper()
	return StartConfig(t, Config{Binary: Upstream(t), Flags: flags})
}

// StartConfig runs a server and waits until it is ready. It is killed at the end of the test.
func StartConfig(t testing.TB, cfg Config) *Server {
	t.Helper()
	s := Launch(t, cfg)
	s.waitReady(t)
	return s
}

// Launch runs a server without waiting for anything. It is killed at the end of the test.
func Launch(t testing.TB, cfg Config) *Server {
	t.Helper()
	if cfg.Binary == "" {
		cfg.Binary = Binary(t)
	}
	s := &Server{binary: cfg.Binary, WorkDir: t.TempDir(), DataDir: cfg.DataDir}
	if s.DataDir == "" {
		s.DataDir = filepath.Join(s.WorkDir, "data")
	}
	for name, text := range cfg.Files {
		if err := os.WriteFile(filepath.Join(s.WorkDir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if !cfg.BareArgs {
		s.Endpoint = FreePort(t)
		client, peer := "http://"+s.Endpoint, "http://"+FreePort(t)
		if cfg.Secure {
			client = "https://" + s.Endpoint
		}
		s.args = []string{
			"--data-dir", s.DataDir,
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", "default=" + peer,
		}
	}
	s.args = append(s.args, cfg.Flags...)
	s.env = append(cleanEnv(), cfg.Env...)
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() && !s.silent {
			t.Logf("log of %s %s:\n%s", s.binary, strings.Join(s.args, " "), s.Log.tail())
		}
	})
	s.launch(t)
	return s
}

// cleanEnv is the caller's environment without what a server would take for its settings.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCD") { // ETCD_… are the server's, ETCDCTL_… are etcdctl's
			env = append(env, v)
		}
	}
	return env
}

func (s *Server) launch(t testing.TB) {
	t.Helper()
	log := newOutput()
	cmd := exec.Command(s.binary, s.args...)
	cmd.Dir, cmd.Env, cmd.Stderr, cmd.Stdout = s.WorkDir, s.env, log, log
	// A test process that dies takes its servers with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.Log, s.process, s.exited = log, cmd, make(chan struct{})
	if err := startOnKeptThread(cmd); err != nil {
		close(s.exited)
		t.Fatal(err)
	}
	exited := s.exited
	go func() {
		_ = cmd.Wait() // the exit state is kept by cmd
		close(exited)
		log.end()
	}()
}

// starts are served by one goroutine on a thread of its own: the kernel sends a child's Pdeathsig when the thread that
// started it ends, and Go ends threads as it likes.
var starts = sync.OnceValue(func() chan<- func() {
	jobs := make(chan func())
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job()
		}
	}()
	return jobs
})

func startOnKeptThread(cmd *exec.Cmd) error {
	done := make(chan error)
	starts() <- func() { done <- cmd.Start() }
	return <-done
}

func (s *Server) waitReady(t testing.TB) {
	t.Helper()
	if !s.Log.Wait(readyLine, readyLimit) {
		t.Fatalf("no line %q within %v (exit: %v)", readyLine, readyLimit, s.exitText())
	}
}

func (s *Server) exitText() string {
	select {
	case <-s.exited:
		return s.process.ProcessState.String()
	default:
		return "still running"
	}
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (s *Server) Kill() {
	s.keeper.Lock()
	defer s.keeper.Unlock()
	_ = s.process.Process.Kill() // gone already is as good
	<-s.exited
}

// Discard kills a server that a test has no more use for; its log will not be shown.
func (s *Server) Discard() {
	s.silent = true
	s.Kill()
}

// Stop sends SIGTERM and waits until the process is gone. It returns how long that took.
func (s *Server) Stop(t testing.TB) time.Duration {
	t.Helper()
	s.keeper.Lock()
	defer s.keeper.Unlock()
	start := time.Now()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
	s.awaitExit(t)
	return time.Since(start)
}

// Signal sends a signal to the process.
func (s *Server) Signal(sig syscall.Signal) error { return s.process.Process.Signal(sig) }

// Exit waits for the process to end by itself and returns its exit code, −1 for a death by signal.
func (s *Server) Exit(t testing.TB) int {
	t.Helper()
	s.awaitExit(t)
	return s.process.ProcessState.ExitCode()
}

// EndedBy is the signal that ended the process, 0 if none did.
func (s *Server) EndedBy() syscall.Signal {
	if status, ok := s.process.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal()
	}
	return 0
}

func (s *Server) awaitExit(t testing.TB) {
	t.Helper()
	select {
	case <-s.exited:
	case <-time.After(stopLimit):
		t.Fatalf("the process still runs after %v", stopLimit)
	}
}

// Restart runs the server again on its data and ports, after Kill or Stop, and waits until it is ready.
func (s *Server) Restart(t testing.TB, moreFlags ...string) {
	t.Helper()
	s.keeper.Lock()
	defer s.keeper.Unlock()
	select {
	case <-s.exited:
	default:
		t.Fatal("Restart of a running server")
	}
	s.args = append(s.args[:len(s.args):len(s.args)], moreFlags...)
	s.launch(t)
	s.waitReady(t)
}

// Pid is the process id of the running or last process.
func (s *Server) Pid() int { return s.process.Process.Pid }
