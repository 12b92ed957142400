package npm

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire/test/harness"
)

const (
	installLimit = 3 * time.Minute
	runLimit     = 2 * time.Minute
)

// install puts the client into a temporary folder.
func install(t *testing.T) (dir string) {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("no %s: %v", program, err)
		}
	}
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("client")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), installLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		text := string(out)
		if strings.Contains(text, "package-lock.json") || strings.Contains(text, "EINTEGRITY") {
			t.Fatalf("the pinned packages do not fit together: %v\n%s", err, text)
		}
		t.Skipf("npm's packages cannot be fetched: %v\n%s", err, text)
	}
	return dir
}

// run is what the script prints.
func run(t *testing.T, dir string, s *harness.Server) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", filepath.Join(dir, "history.js"), s.Endpoint)
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "# done\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// TestHistory: keys, transactions, watches, leases, locks, elections, maintenance and authentication look the same to
// the client on both servers.
func TestHistory(t *testing.T) {
	dir := install(t)
	got := run(t, dir, harness.Start(t))
	want := run(t, dir, harness.StartUpstream(t))
	if got != want {
		t.Errorf("--- got\n%s--- want\n%s", got, want)
	}
	for _, line := range []string{
		`all: ["a","b","c"]`,
		`txn not: [false,"12"]`,
		`watched: [["put","w/1","a",null],["put","w/1","b","a"],["delete","w/1"]]`,
		`expired: null`,
		`second lock: true`,
		`next leader: "bob"`,
		`ann writes: "EtcdPermissionDeniedError"`,
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no line %s in\n%s", line, got)
		}
	}
}
