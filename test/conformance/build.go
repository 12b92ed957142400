package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	testPackage = "go.etcd.io/etcd/tests/v3/common"
	logName     = "conformance.log"
)

// binaries is what a run needs, by absolute paths.
type binaries struct {
	server string // what was asked for
	dir    string // etcd, etcdctl and etcdutl, as the tests look for them
	tests  string // the test binary
	source string // the folder that it runs in
}

// buildAll lays out the folder of binaries.
func buildAll(ctx context.Context, o options) (b binaries, err error) {
	work, err := filepath.Abs(o.work)
	if err != nil {
		return b, err
	}
	b = binaries{dir: filepath.Join(work, "bin"), tests: filepath.Join(work, "common.test")}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return b, err
	}
	etcd := filepath.Join(b.dir, "etcd")
	build := [][]string{
		{"build", "-o", filepath.Join(b.dir, "etcdctl"), "go.etcd.io/etcd/etcdctl/v3"},
		{"build", "-o", filepath.Join(b.dir, "etcdutl"), "go.etcd.io/etcd/etcdutl/v3"},
		{"test", "-c", "-tags", "e2e", "-o", b.tests, testPackage},
	}
	if o.upstream {
		b.server = "upstream etcd"
		build = append(build, []string{"build", "-o", etcd, "go.etcd.io/etcd/server/v3"})
	} else {
		b.server = o.server
		if err := copyFile(etcd, o.server); err != nil {
			return b, err
		}
	}
	for _, args := range build {
		if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil {
			return b, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	out, err := exec.CommandContext(ctx, "go", "list", "-tags", "e2e", "-f", "{{.Dir}}", testPackage).Output()
	b.source = strings.TrimSpace(string(out))
	return b, err
}

// copyFile replaces to, which may be running, by a copy of the program from.
func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.Remove(to); err != nil && !os.IsNotExist(err) {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
