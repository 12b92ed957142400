package backup

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"quire/test/harness"
)

// copyDir returns a copy of a directory.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	must(t, os.CopyFS(to, os.DirFS(from)))
	for _, dir := range []string{".", "member", "member/snap", "member/wal"} {
		must(t, os.Chmod(filepath.Join(to, dir), 0o700))
	}
	return to
}

// sums are the checksums of all files below a directory.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		all[path] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	}))
	return all
}

// TestImport takes over the data of an etcd that was stopped in good order, and of one that was killed while it was
// written to.
func TestImport(t *testing.T) {
	onlyQuire(t)
	for _, how := range []string{"stopped", "killed", "killed with auth"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			auth := strings.HasSuffix(how, "auth")
			s := harness.StartUpstream(t)
			c := client(t, s, false)
			fill(t, c, 7, 300)
			if auth {
				enableAuth(t, c)
				c = client(t, s, true)
			}
			if how == "stopped" {
				s.Stop(t)
			} else {
				ctx, stop := context.WithCancel(t.Context())
				var wg sync.WaitGroup
				for w := range 8 {
					wg.Go(func() {
						for i := 0; ctx.Err() == nil; i++ {
							_, _ = c.Put(ctx, fmt.Sprintf("w%d/%d", w, i%50), strings.Repeat("x", i%300)) // the last ones fail
						}
					})
				}
				time.Sleep(time.Second)
				s.Kill()
				stop()
				wg.Wait()
			}
			before := sums(t, s.DataDir)
			dir := filepath.Join(t.TempDir(), "imported")
			text := quire(t, "import", "--etcd-data-dir", s.DataDir, "--data-dir", dir)
			if !strings.Contains(text, "\nequal\n") {
				t.Errorf("import says\n%s", text)
			}
			if how != "stopped" && !strings.Contains(text, "entries of etcd's log") {
				t.Logf("etcd's database had everything already:\n%s", text)
			}
			after := sums(t, s.DataDir)
			if fmt.Sprint(before) != fmt.Sprint(after) {
				t.Error("the etcd directory was changed")
			}
			ours := harness.StartConfig(t, harness.Config{DataDir: dir})
			got := picture(t, client(t, ours, auth))
			s.Restart(t)
			want := picture(t, client(t, s, auth))
			samePicture(t, "imported", got, want)
			ids := func(s *harness.Server) string {
				r, err := client(t, s, auth).MemberList(limit(t, 10*time.Second))
				must(t, err)
				return fmt.Sprintf("member %x %s of cluster %x", r.Members[0].ID, r.Members[0].Name, r.Header.ClusterId)
			}
			if a, b := ids(ours), ids(s); a != b {
				t.Errorf("imported as %s, was %s", a, b)
			}
		})
	}
}

// TestImportRefuses says why it refuses.
func TestImportRefuses(t *testing.T) {
	onlyQuire(t)
	t.Parallel()
	s := harness.StartUpstream(t)
	fill(t, client(t, s, false), 8, 50)
	into := filepath.Join(t.TempDir(), "imported")
	refuse := func(what, text string, args ...string) {
		t.Helper()
		o := run(t, harness.Binary(t), append([]string{"import", "--data-dir", into}, args...)...)
		if o.code != 1 || !strings.Contains(o.text, text) {
			t.Errorf("%s: exit code %d, %q, want %q", what, o.code, o.text, text)
		}
		if _, err := os.Stat(into); err == nil {
			t.Errorf("%s: a directory was made", what)
		}
	}
	refuse("a running etcd", "locked by another process", "--etcd-data-dir", s.DataDir)
	refuse("nothing", "holds no data of an etcd member", "--etcd-data-dir", t.TempDir())
	s.Stop(t)
	broken := copyDir(t, s.DataDir)
	wal, err := filepath.Glob(filepath.Join(broken, "member", "wal", "*.wal"))
	must(t, err)
	b, err := os.ReadFile(wal[0])
	must(t, err)
	b[300] ^= 1
	must(t, os.WriteFile(wal[0], b, 0o600))
	refuse("a damaged log", "is corrupt", "--etcd-data-dir", broken)
	must(t, os.Remove(wal[0]))
	refuse("no log", "no log file has the entry", "--etcd-data-dir", broken)
	refuse("other members' flags", "couldn't find local name", "--etcd-data-dir", s.DataDir, "--name", "x")

	// A cluster of two: it must be said who the new member is.
	s.Restart(t)
	c := client(t, s, false)
	want := picture(t, c)
	if _, err := c.MemberAdd(limit(t, 10*time.Second), []string{"http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	s.Kill()
	refuse("two members", "has 2 members", "--etcd-data-dir", s.DataDir)
	text := quire(t, "import", "--data-dir", into, "--etcd-data-dir", s.DataDir, "--name", "m", "--initial-cluster", "m=http://127.0.0.1:7",
		"--initial-advertise-peer-urls", "http://127.0.0.1:7")
	ours := harness.StartConfig(t, harness.Config{DataDir: into, Flags: []string{"--name", "m"}})
	samePicture(t, "imported as another member\n"+text, picture(t, client(t, ours, false)), want)
}
