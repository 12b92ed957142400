package harness

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"testing"
	"time"
)

// ctlLimit ends an etcdctl that hangs; wide, for a busy machine.
const ctlLimit = time.Minute

// CtlResult is what one run of etcdctl left.
type CtlResult struct {
	Stdout, Stderr string
	ExitCode       int
}

// Ctl runs etcdctl against the server with these arguments and an empty standard input.
func (s *Server) Ctl(t testing.TB, args ...string) CtlResult {
	t.Helper()
	return s.CtlInput(t, "", args...)
}

// CtlInput runs etcdctl against the server with a standard input.
func (s *Server) CtlInput(t testing.TB, input string, args ...string) CtlResult {
	t.Helper()
	select {
	case <-s.exited:
		t.Fatalf("the server has ended: %s", s.exitText())
	default:
	}
	Etcdctl(t) // built outside of the limit
	ctx, cancel := context.WithTimeout(t.Context(), ctlLimit)
	defer cancel()
	cmd := s.CtlCommand(ctx, t, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewBufferString(input), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd, err)
	}
	return CtlResult{Stdout: stdout.String(), Stderr: stderr.String(), ExitCode: cmd.ProcessState.ExitCode()}
}

// CtlCommand is an etcdctl command against the server, not yet started, for tests that talk to it while it runs.
func (s *Server) CtlCommand(ctx context.Context, t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(ctx, Etcdctl(t), append([]string{"--endpoints", s.Endpoint}, args...)...)
	cmd.Env = cleanEnv()
	cmd.WaitDelay = time.Second
	return cmd
}

// CtlStart starts etcdctl in the background and returns what it prints; it is killed at the end of the test. Input may be nil.
func (s *Server) CtlStart(t testing.TB, input io.Reader, args ...string) (*exec.Cmd, *Output) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd, out := s.CtlCommand(ctx, t, args...), newOutput()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = input, out, out
	if err := cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed, or waited for by the test
	})
	return cmd, out
}
