package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire/test/harness"
)

// frozen is a file system of its own that can be frozen: writes to it then wait,
// as on a disk that does not answer.
type frozen struct {
	t   *testing.T
	dir string
}

// newFrozen makes one on a loop device; without the rights to that the test is
// skipped.
func newFrozen(t *testing.T) *frozen {
	t.Helper()
	image, dir := filepath.Join(t.TempDir(), "disk"), t.TempDir()
	for _, tool := range []string{"mkfs.ext4", "mount", "umount", "fsfreeze", "cp"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root can freeze a file system")
	}
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, 400<<20))
	if out, err := exec.Command("mkfs.ext4", "-q", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("mount", "-o", "loop", image, dir).CombinedOutput(); err != nil {
		t.Skipf("no loop device: %v: %s", err, out)
	}
	f := &frozen{t, dir}
	t.Cleanup(func() {
		_ = exec.Command("fsfreeze", "-u", dir).Run() // thawed already is as good
		for try := 0; exec.Command("umount", dir).Run() != nil && try < 50; try++ {
			time.Sleep(100 * time.Millisecond)
		}
	})
	return f
}

func (f *frozen) freeze() { f.run("-f") }

func (f *frozen) thaw() { f.run("-u") }

func (f *frozen) run(flag string) {
	f.t.Helper()
	if out, err := exec.Command("fsfreeze", flag, f.dir).CombinedOutput(); err != nil {
		f.t.Fatalf("fsfreeze %s: %v: %s", flag, err, out)
	}
}

// takeLog moves the log of a server to the file system; the server runs again then.
func (f *frozen) takeLog(s *harness.Server) {
	f.t.Helper()
	s.Stop(f.t)
	old, moved := filepath.Join(s.DataDir, "wal"), filepath.Join(f.dir, "wal")
	if out, err := exec.Command("cp", "-a", old, moved).CombinedOutput(); err != nil {
		f.t.Fatalf("%v: %s", err, out)
	}
	check(f.t, os.RemoveAll(old))
	check(f.t, os.Symlink(moved, old))
	s.Restart(f.t)
}

// stallingLeader is a cluster whose leader's log lies on the file system.
func stallingLeader(t *testing.T) (*harness.Cluster, *harness.Server, *frozen) {
	f := newFrozen(t)
	c, ctx := harness.StartCluster(t, 3, "--heartbeat-interval=50", "--election-timeout=500"), harness.Context(t)
	victim := c.Servers[0]
	f.takeLog(victim)
	for try := 0; c.Leader(t) != victim; try++ {
		if try == 20 {
			t.Fatal("the member does not become the leader")
		}
		_, _ = c.Client(t, c.Leader(t)).MoveLeader(ctx, victim.MemberID(t)) // whether it worked is seen
		time.Sleep(100 * time.Millisecond)
	}
	return c, victim, f
}

func get(t *testing.T, s *harness.Server, path string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Endpoint+path, nil)
	check(t, err)
	resp, err := http.DefaultClient.Do(req)
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp.StatusCode, string(body)
}

// TestStalledDisk: when the disk of the leader's log does not answer, leadership
// goes to another member within two election timeouts or so, without an election
// timeout of the followers having to pass first; /readyz says what is wrong, /livez
// does not mind. When the disk answers again the member catches up.
func TestStalledDisk(t *testing.T) {
	c, victim, f := stallingLeader(t)
	ctx := harness.Context(t)
	others := c.Others(victim)
	if code, body := get(t, victim, "/readyz?verbose"); code != http.StatusOK || !strings.Contains(body, "[+]log_write ok\n") {
		t.Fatalf("/readyz: %d %s", code, body)
	}
	f.freeze()
	frozenAt := time.Now()
	// Something must be written for the stall to be noticed.
	longest := time.Duration(0)
	cli := c.Client(t, others...)
	for i := 0; time.Since(frozenAt) < 5*time.Second; i++ {
		began := time.Now()
		_, err := cli.Put(ctx, fmt.Sprint("during/", i), "v")
		check(t, err)
		longest = max(longest, time.Since(began))
	}
	t.Logf("the longest write took %v", longest)
	if longest > 3*time.Second {
		t.Errorf("a write took %v while the leader's disk stalled", longest)
	}
	if l := c.Leader(t, others...); l == victim {
		t.Error("the member whose disk stalls leads")
	}
	code, body := get(t, victim, "/readyz?verbose")
	if code != http.StatusServiceUnavailable || !strings.Contains(body, "[-]log_write failed: a write to the log has not ended for ") {
		t.Errorf("/readyz during the stall: %d %s", code, body)
	}
	if code, body := get(t, victim, "/livez"); code != http.StatusOK {
		t.Errorf("/livez during the stall: %d %s", code, body)
	}
	if code, body := get(t, victim, "/metrics"); code != http.StatusOK || !strings.Contains(body, "quire_log_stalls_total 1\n") {
		t.Errorf("the stall is not counted")
	}
	f.thaw()
	if !victim.Log.Wait("the disk of the log answers again", 10*time.Second) {
		t.Error("the end of the stall is not logged")
	}
	if code, body := get(t, victim, "/readyz"); code != http.StatusOK {
		t.Errorf("/readyz after the stall: %d %s", code, body)
	}
	sameData(ctx, t, c)
}

// TestHungDisk: a write that never ends ends the process, with a line that says so.
func TestHungDisk(t *testing.T) {
	c, victim, f := stallingLeader(t)
	ctx := harness.Context(t)
	f.freeze()
	others := c.Others(victim)
	_, err := c.Client(t, others...).Put(ctx, "k", "v")
	check(t, err)
	if !victim.Log.Wait("a write has not ended for", 45*time.Second) {
		t.Fatal("the process does not say that it ends")
	}
	if !victim.Log.Wait("quire ends", 10*time.Second) {
		t.Fatal("the process does not end")
	}
	f.thaw() // what waits in the kernel keeps the process's remains
	if code := victim.Exit(t); code != 1 {
		t.Errorf("exit code %d", code)
	}
	victim.Restart(t)
	sameData(ctx, t, c)
}
