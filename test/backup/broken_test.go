package backup

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"quire/test/harness"
)

// TestDamagedSnapshot flips bytes all over a snapshot and cuts it: it is refused, and nothing is made of it.
func TestDamagedSnapshot(t *testing.T) {
	onlyQuire(t)
	t.Parallel()
	s := harness.Start(t)
	fill(t, client(t, s, false), 9, 60)
	whole, err := os.ReadFile(save(t, s, false))
	must(t, err)
	dir := t.TempDir()
	snap, into := filepath.Join(dir, "damaged.db"), filepath.Join(dir, "restored")
	try := func(what string, b []byte, flags ...string) output {
		t.Helper()
		must(t, os.WriteFile(snap, b, 0o600))
		o := run(t, harness.Binary(t), append([]string{"restore", snap, "--data-dir", into}, flags...)...)
		if o.code != 0 && o.code != 1 || strings.Contains(o.text, "goroutine ") {
			t.Fatalf("%s: exit code %d\n%s", what, o.code, o.text)
		}
		return o
	}
	step := len(whole)/60 + 1
	for i := 7; i < len(whole); i += step {
		b := bytes.Clone(whole)
		b[i] ^= 0x10
		if o := try("a flipped byte", b); o.code == 0 || !strings.Contains(o.text, "expected sha256") {
			t.Fatalf("byte %d of %d flipped: %+v", i, len(whole), o)
		}
		if _, err := os.Stat(into); !errors.Is(err, os.ErrNotExist) {
			t.Fatal("something was made of a damaged snapshot")
		}
		// Without the sum much of it is noticed all the same; none of it ends in a crash.
		try("a flipped byte, unchecked", b, "--skip-hash-check")
		must(t, os.RemoveAll(into))
	}
	for n := 0; n < len(whole); n += step {
		if o := try("cut", whole[:n], "--skip-hash-check"); o.code == 0 {
			t.Errorf("a snapshot cut to %d of %d bytes is restored", n, len(whole))
		}
		must(t, os.RemoveAll(into))
	}
}

// TestInterrupted kills a restore at random moments. A server then starts on all of it, or refuses, or there is nothing.
func TestInterrupted(t *testing.T) {
	onlyQuire(t)
	t.Parallel()
	s := harness.Start(t)
	c := client(t, s, false)
	fill(t, c, 10, 100)
	for i := range 20 {
		_, err := c.Put(t.Context(), "large"+string(rune('a'+i)), strings.Repeat("x", 1<<20))
		must(t, err)
	}
	want := picture(t, c)
	snap := save(t, s, false)
	s.Kill()
	outcomes := map[string]int{}
	for range 25 {
		dir := filepath.Join(t.TempDir(), "restored")
		cmd := exec.Command(harness.Binary(t), "restore", snap, "--data-dir", dir)
		must(t, cmd.Start())
		time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if left, _ := os.ReadDir(filepath.Join(dir, "store")); len(left) == 0 || len(left) == 1 && left[0].Name() == "LOCK" {
			outcomes["nothing"]++
			continue
		}
		if o := run(t, harness.Binary(t), "export", "--data-dir", dir, filepath.Join(t.TempDir(), "x.db")); o.code != 0 {
			if !strings.Contains(o.text, "was interrupted") {
				t.Errorf("refused with %q", o.text)
			}
			outcomes["refused"]++
			if o := run(t, harness.Binary(t), "restore", snap, "--data-dir", dir); o.code == 0 {
				t.Error("a restore into what another one has left")
			}
			continue
		}
		outcomes["whole"]++
		if outcomes["whole"] == 1 {
			samePicture(t, "a killed restore that was whole", picture(t, client(t, harness.StartConfig(t, harness.Config{DataDir: dir}), false)), want)
		}
	}
	t.Log(outcomes)
}

// TestRestoreRefuses checks etcdutl's rules and words.
func TestRestoreRefuses(t *testing.T) {
	onlyQuire(t)
	t.Parallel()
	s := harness.Start(t)
	fill(t, client(t, s, false), 11, 30)
	snap := save(t, s, false)
	full, empty := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(full, "x"), nil, 0o600))
	fresh := filepath.Join(t.TempDir(), "fresh")
	for _, tc := range []struct {
		args []string
		text string
	}{
		{nil, "requires exactly one argument"},
		{[]string{snap, snap}, "requires exactly one argument"},
		{[]string{snap, "--bump-revision", "5"}, "--mark-compacted required if --revision-bump > 0"},
		{[]string{snap, "--mark-compacted"}, "--mark-compacted required if --revision-bump > 0"},
		{[]string{snap, "--data-dir", full}, "not empty or could not be read"},
		{[]string{snap, "--wal-dir", empty}, "wal-dir \"" + empty + "\" exists"},
		{[]string{snap, "--name", "x"}, "couldn't find local name \"x\" in the initial cluster configuration"},
		{[]string{snap, "--initial-cluster", "default=http://a:1"}, "--initial-cluster has default=http://a:1 but missing from --initial-advertise-peer-urls=http://localhost:2380"},
		{[]string{snap, "--initial-cluster", "default=nothing"}, "URL scheme must be http, https, unix, or unixs: nothing"},
		{[]string{filepath.Join(fresh, "none")}, "no such file or directory"},
		{[]string{snap, "--nonsense"}, "flag provided but not defined"},
	} {
		args := append([]string{"restore"}, tc.args...)
		if !strings.Contains(strings.Join(args, " "), "--data-dir") {
			args = append(args, "--data-dir", fresh)
		}
		if o := run(t, harness.Binary(t), args...); o.code != 1 || !strings.Contains(o.text, tc.text) {
			t.Errorf("%v: exit code %d, %q, want %q", tc.args, o.code, o.text, tc.text)
		}
		if _, err := os.Stat(fresh); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%v: something was made", tc.args)
		}
	}
	// An empty directory that is there is fine: it may be a mount point.
	quire(t, "restore", snap, "--data-dir", empty, "--name", "m", "--initial-cluster", "m=http://10.0.0.1:2380", "--initial-cluster-token", "tok",
		"--initial-advertise-peer-urls", "http://10.0.0.1:2380", "--initial-memory-map-size", "0")
	r := harness.StartConfig(t, harness.Config{DataDir: empty, Flags: []string{"--name", "m"}})
	ms, err := client(t, r, false).MemberList(limit(t, 10*time.Second))
	must(t, err)
	theirs := filepath.Join(t.TempDir(), "theirs")
	utl(t, "snapshot", "restore", snap, "--data-dir", theirs, "--name", "m", "--initial-cluster", "m=http://10.0.0.1:2380", "--initial-cluster-token", "tok",
		"--initial-advertise-peer-urls", "http://10.0.0.1:2380")
	up := harness.StartConfig(t, harness.Config{Binary: harness.Upstream(t), DataDir: theirs, Flags: []string{"--name", "m"}})
	theirMembers, err := client(t, up, false).MemberList(limit(t, 10*time.Second))
	must(t, err)
	if a, b := ms.Members[0], theirMembers.Members[0]; a.ID != b.ID || a.Name != b.Name || a.PeerURLs[0] != b.PeerURLs[0] || ms.Header.ClusterId != theirMembers.Header.ClusterId {
		t.Errorf("restored as %v, etcdutl as %v", a, b)
	}
}

// TestNoSpace fills the disk but for little: a snapshot fails, and nothing else.
func TestNoSpace(t *testing.T) {
	onlyQuire(t)
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := harness.StartConfig(t, harness.Config{DataDir: filepath.Join(dir, "data")})
	c := client(t, s, false)
	fill(t, c, 12, 100)
	save(t, s, false)
	var st syscall.Statfs_t
	must(t, syscall.Statfs(dir, &st))
	ballast := int(st.Bavail)*int(st.Bsize) - 20<<20
	must(t, os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, ballast), 0o600))
	stream, err := c.Snapshot(t.Context())
	if err == nil {
		_, err = stream.Read(make([]byte, 1))
	}
	if st, _ := status.FromError(err); st.Code() != codes.ResourceExhausted && !strings.Contains(err.Error(), "no space for a snapshot") {
		t.Errorf("snapshot on a full disk: %v", err)
	}
	if _, err := c.Put(t.Context(), "still", "works"); err != nil {
		t.Error(err)
	}
	alarms, err := c.AlarmList(t.Context())
	if err != nil || len(alarms.Alarms) > 0 {
		t.Errorf("alarms %v, %v", alarms, err)
	}
	must(t, os.Remove(filepath.Join(dir, "ballast")))
	save(t, s, false)
}

// TestSecondVoterRestart restarts a server whose second voter has never come: it lives, waits, and answers what needs no
// quorum to nobody but its log.
func TestSecondVoterRestart(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c := client(t, s, false)
	_, err := c.Put(t.Context(), "k", "v")
	must(t, err)
	_, err = c.MemberAdd(limit(t, 10*time.Second), []string{"http://127.0.0.1:1"})
	must(t, err)
	s.Kill()
	again := harness.Launch(t, harness.Config{DataDir: s.DataDir})
	if again.Log.Wait("ready to serve client requests", 4*time.Second) {
		t.Error("a member without a quorum says that it is ready")
	}
	again.Stop(t)
}

// TestForceNewCluster gets a server going again whose second voter has never come, and one with a learner.
func TestForceNewCluster(t *testing.T) {
	t.Parallel()
	for _, learner := range []bool{false, true} {
		s := harness.Start(t)
		c := client(t, s, false)
		fill(t, c, 13, 100)
		want := picture(t, c)
		add := c.MemberAdd
		if learner {
			add = c.MemberAddAsLearner
		}
		_, err := add(limit(t, 10*time.Second), []string{"http://127.0.0.1:1"})
		must(t, err)
		s.Kill()
		again := harness.StartConfig(t, harness.Config{DataDir: s.DataDir, Flags: []string{"--force-new-cluster"}})
		c = client(t, again, false)
		samePicture(t, "forced", picture(t, c), want)
		members, err := c.MemberList(limit(t, 10*time.Second))
		must(t, err)
		if len(members.Members) != 1 || members.Members[0].IsLearner {
			t.Errorf("members %v", members.Members)
		}
		_, err = c.Put(limit(t, 10*time.Second), "k", "v")
		must(t, err)
		again.Kill()
		again = harness.StartConfig(t, harness.Config{DataDir: s.DataDir})
		r, err := client(t, again, false).Get(limit(t, 10*time.Second), "k")
		if err != nil || len(r.Kvs) != 1 {
			t.Errorf("after the restart: %v, %v", r, err)
		}
	}
}
