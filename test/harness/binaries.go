package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// The main packages of upstream that this module pins as Go tools.
const (
	upstreamServer = "go.etcd.io/etcd/server/v3"
	upstreamCtl    = "go.etcd.io/etcd/etcdctl/v3"
	upstreamUtl    = "go.etcd.io/etcd/etcdutl/v3"
)

// Binary is the path of the server under test.
func Binary(t testing.TB) string {
	t.Helper()
	return must(t, underTest)
}

// Upstream is the path of upstream etcd's server, for comparisons.
func Upstream(t testing.TB) string {
	t.Helper()
	return must(t, upstream)
}

// Etcdctl is the path of upstream's etcdctl.
func Etcdctl(t testing.TB) string {
	t.Helper()
	return must(t, etcdctl)
}

// Etcdutl is the path of upstream's etcdutl.
func Etcdutl(t testing.TB) string {
	t.Helper()
	return must(t, etcdutl)
}

// IsQuire tells whether the server under test is quire, for the few expectations in which it means to differ from
// upstream. It goes by what the binary says of itself.
func IsQuire(t testing.TB) bool {
	t.Helper()
	return strings.Contains(strings.ToLower(must(t, versionText)), "quire")
}

var (
	underTest = sync.OnceValues(func() (string, error) {
		_, _ = os.Stat(runFile()) // so that the result is not cached; the file may not be there yet
		if path := os.Getenv("QUIRE_BIN"); path != "" {
			return filepath.Abs(path)
		}
		return buildQuire()
	})
	upstream    = sync.OnceValues(func() (string, error) { return tool("UPSTREAM_BIN", upstreamServer, "etcd") })
	etcdctl     = sync.OnceValues(func() (string, error) { return tool("ETCDCTL_BIN", upstreamCtl, "etcdctl") })
	etcdutl     = sync.OnceValues(func() (string, error) { return tool("ETCDUTL_BIN", upstreamUtl, "etcdutl") })
	versionText = sync.OnceValues(func() (string, error) {
		path, err := underTest()
		if err != nil {
			return "", err
		}
		out, err := exec.Command(path, "--version").Output()
		return string(out), err
	})
)

// moduleDir is the folder of this module, found from the place of this source file.
func moduleDir() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(file))
}

// buildQuire builds the binary under test as README.md documents it, with make where there is one.
func buildQuire() (string, error) {
	root := filepath.Dir(moduleDir())
	unlock, err := lockBuilds()
	if err != nil {
		return "", err
	}
	defer unlock()
	out := filepath.Join(root, "bin", "quire")
	if _, err := os.Stat(filepath.Join(root, "Makefile")); err == nil {
		return out, run(root, "make", "build")
	}
	return out, run(root, "go", "build", "-o", out, "./cmd/quire")
}

// tool returns the binary that the environment variable names, or builds the pinned package.
func tool(variable, pkg, name string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		return filepath.Abs(path)
	}
	unlock, err := lockBuilds()
	if err != nil {
		return "", err
	}
	defer unlock()
	out := filepath.Join(moduleDir(), ".bin", name)
	return out, run(moduleDir(), "go", "build", "-o", out, pkg)
}

// lockBuilds makes the test processes of this module build one after another: they share the output folder.
func lockBuilds() (unlock func(), err error) {
	dir := filepath.Join(moduleDir(), ".bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

func run(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s in %s: %w\n%s", cmd, dir, err, out)
	}
	return nil
}

func must(t testing.TB, f func() (string, error)) string {
	t.Helper()
	s, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
