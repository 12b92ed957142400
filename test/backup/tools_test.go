package backup

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire/test/harness"
)

// toolLimit ends a program that hangs.
const toolLimit = time.Minute

// output is what a program left.
type output struct {
	text string // both streams
	code int
}

// run runs a program to its end.
func run(t testing.TB, name string, args ...string) output {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), toolLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var both bytes.Buffer
	cmd.Stdout, cmd.Stderr = &both, &both
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", cmd, err)
	}
	return output{both.String(), cmd.ProcessState.ExitCode()}
}

// utl runs etcdutl, which must succeed.
func utl(t testing.TB, args ...string) string {
	t.Helper()
	o := run(t, harness.Etcdutl(t), args...)
	if o.code != 0 {
		t.Fatalf("etcdutl %s: exit code %d\n%s", strings.Join(args, " "), o.code, o.text)
	}
	return o.text
}

// quire runs a command of the binary under test, which must succeed.
func quire(t testing.TB, args ...string) string {
	t.Helper()
	o := run(t, harness.Binary(t), args...)
	if o.code != 0 {
		t.Fatalf("quire %s: exit code %d\n%s", strings.Join(args, " "), o.code, o.text)
	}
	return o.text
}

// onlyQuire skips a test of commands that etcd does not have.
func onlyQuire(t testing.TB) {
	t.Helper()
	if !harness.IsQuire(t) {
		t.Skip("the commands restore, import and export are quire's")
	}
}

// save stores a snapshot with etcdctl.
func save(t testing.TB, s *harness.Server, auth bool) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "snapshot.db")
	args := []string{"snapshot", "save", path}
	if auth {
		args = append(args, "--user", "root:"+rootPassword)
	}
	if r := s.Ctl(t, args...); r.ExitCode != 0 {
		t.Fatalf("snapshot save: %s %s", r.Stdout, r.Stderr)
	}
	info, err := os.Stat(path)
	must(t, err)
	if info.Size()%512 != 32 {
		t.Errorf("the snapshot has %d bytes, want a multiple of 512 and the sum", info.Size())
	}
	return path
}

// copyOf returns a copy of a file: etcdutl writes to the files that it reads.
func copyOf(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	to := filepath.Join(t.TempDir(), "copy.db")
	must(t, os.WriteFile(to, b, 0o600))
	return to
}

// upstreamFrom starts upstream on a restored snapshot.
func upstreamFrom(t testing.TB, snapshot string, flags ...string) *harness.Server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	utl(t, append([]string{"snapshot", "restore", snapshot, "--data-dir", dir}, flags...)...)
	return harness.StartConfig(t, harness.Config{Binary: harness.Upstream(t), DataDir: dir})
}

// quireFrom starts the server under test on a restored snapshot.
func quireFrom(t testing.TB, snapshot string, flags ...string) *harness.Server {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "restored")
	quire(t, append([]string{"restore", snapshot, "--data-dir", dir}, flags...)...)
	return harness.StartConfig(t, harness.Config{DataDir: dir})
}
