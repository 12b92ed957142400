package backup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"quire/test/harness"
)

// TestToUpstream takes a snapshot of the server under test to upstream.
func TestToUpstream(t *testing.T) {
	for _, auth := range []bool{false, true} {
		t.Run(fmt.Sprintf("auth=%t", auth), func(t *testing.T) {
			t.Parallel()
			s := harness.Start(t)
			c := client(t, s, false)
			fill(t, c, 1, 400)
			if auth {
				enableAuth(t, c)
				c = client(t, s, true)
			}
			want := picture(t, c)
			snap := save(t, s, auth)
			checkStatus(t, c, snap)
			samePicture(t, "upstream, restored", picture(t, client(t, upstreamFrom(t, snap), auth)), want)
			if harness.IsQuire(t) {
				again := quireFrom(t, snap)
				c := client(t, again, auth)
				samePicture(t, "restored", picture(t, c), want)
				again.Kill()
				again.Restart(t)
				samePicture(t, "restored and killed", picture(t, c), want)
			}
		})
	}
}

// checkStatus compares what etcdutl says of the file with what the server says.
func checkStatus(t *testing.T, c *clientv3.Client, snap string) {
	t.Helper()
	ctx := limit(t, 10*time.Second)
	hash, err := c.HashKV(ctx, c.Endpoints()[0], 0)
	must(t, err)
	all, err := c.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithCountOnly())
	must(t, err)
	status := strings.Split(strings.TrimSpace(utl(t, "snapshot", "status", snap)), ", ")
	if len(status) != 5 || status[1] != fmt.Sprint(all.Header.Revision) || status[4] != "3.7.0" {
		t.Errorf("snapshot status %q, revision %d", status, all.Header.Revision)
	}
	got := strings.TrimSpace(utl(t, "hashkv", copyOf(t, snap)))
	if want := fmt.Sprintf("%d, %d, %d", hash.Hash, hash.HashRevision, hash.CompactRevision); got != want {
		t.Errorf("etcdutl hashkv %q, the server says %q", got, want)
	}
}

// TestFromUpstream takes upstream's snapshot, and its database without a checksum, to the server under test.
func TestFromUpstream(t *testing.T) {
	onlyQuire(t)
	for _, auth := range []bool{false, true} {
		t.Run(fmt.Sprintf("auth=%t", auth), func(t *testing.T) {
			t.Parallel()
			s := harness.StartUpstream(t)
			c := client(t, s, false)
			fill(t, c, 2, 400)
			if auth {
				enableAuth(t, c)
				c = client(t, s, true)
			}
			want := picture(t, c)
			snap := save(t, s, auth)
			got := quireFrom(t, snap)
			samePicture(t, "restored", picture(t, client(t, got, auth)), want)
			samePicture(t, "and restored by upstream again", picture(t, client(t, upstreamFrom(t, save(t, got, auth)), auth)), want)
			s.Stop(t)
			db := filepath.Join(s.DataDir, "member", "snap", "db")
			if o := run(t, harness.Binary(t), "restore", db, "--data-dir", filepath.Join(t.TempDir(), "x")); o.code == 0 || !strings.Contains(o.text, "snapshot missing hash but --skip-hash-check=false") {
				t.Errorf("a database without a sum: %+v", o)
			}
			samePicture(t, "restored from the database", picture(t, client(t, quireFrom(t, db, "--skip-hash-check"), auth)), want)
		})
	}
}

// TestRaise restores with a raised revision: both systems agree, and watchers of the old revisions are told.
func TestRaise(t *testing.T) {
	onlyQuire(t)
	t.Parallel()
	for name, start := range map[string]func(testing.TB, ...string) *harness.Server{"quire": harness.Start, "upstream": harness.StartUpstream} {
		s := start(t)
		c := client(t, s, false)
		fill(t, c, 3, 200)
		before, err := c.Get(t.Context(), "")
		if err == nil {
			t.Fatal("an empty key is read")
		}
		before, err = c.Get(t.Context(), "x")
		must(t, err)
		snap := save(t, s, false)
		flags := []string{"--bump-revision", "1000000", "--mark-compacted"}
		theirs, ours := upstreamFrom(t, snap, flags...), quireFrom(t, snap, flags...)
		tc, oc := client(t, theirs, false), client(t, ours, false)
		time.Sleep(500 * time.Millisecond) // upstream compacts behind the start
		want := picture(t, tc)
		samePicture(t, name+"'s snapshot", picture(t, oc), want)
		for side, c := range map[string]*clientv3.Client{"upstream": tc, "quire": oc} {
			r := <-c.Watch(limit(t, 10*time.Second), "key", clientv3.WithRev(before.Header.Revision), clientv3.WithPrefix())
			if r.CompactRevision != before.Header.Revision+1_000_000 || !r.Canceled {
				t.Errorf("%s: a watch of revision %d gets %+v", side, before.Header.Revision, r)
			}
			p, err := c.Put(t.Context(), "after", "1")
			if err != nil || p.Header.Revision != before.Header.Revision+1_000_001 {
				t.Errorf("%s: the next put has revision %d, %v", side, p.Header.Revision, err)
			}
		}
		samePicture(t, name+"'s snapshot, written to", picture(t, oc), picture(t, tc))
		// Once more, over the first time's mark.
		snap = save(t, ours, false)
		theirs, ours = upstreamFrom(t, snap, flags...), quireFrom(t, snap, flags...)
		time.Sleep(500 * time.Millisecond)
		samePicture(t, name+"'s snapshot, raised twice", picture(t, client(t, ours, false)), picture(t, client(t, theirs, false)))
	}
}

// TestSnapshotUnderLoad takes snapshots while writers write. Each is the state at one revision.
func TestSnapshotUnderLoad(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c := client(t, s, false)
	fill(t, c, 4, 100)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := c.Put(ctx, fmt.Sprintf("w%d/%d", w, i%500), strings.Repeat("x", 200)); err != nil && ctx.Err() == nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 4 {
		time.Sleep(200 * time.Millisecond)
		before, err := c.Get(ctx, "x")
		must(t, err)
		snap := save(t, s, false)
		var hash, rev, compacted int64
		_, err = fmt.Sscanf(utl(t, "hashkv", copyOf(t, snap)), "%d, %d, %d", &hash, &rev, &compacted)
		must(t, err)
		live, err := c.HashKV(ctx, c.Endpoints()[0], rev)
		must(t, err)
		if int64(live.Hash) != hash || live.CompactRevision != compacted || rev < before.Header.Revision {
			t.Errorf("snapshot of revision %d has hash %d, the server %d; revision %d was there before", rev, hash, live.Hash, before.Header.Revision)
		}
	}
	// With compactions, too: then the hash of the server at that revision is another one, but both restore the same.
	wg.Go(func() {
		for ctx.Err() == nil {
			if r, err := c.Get(ctx, "x"); err == nil {
				_, _ = c.Compact(ctx, r.Header.Revision-50) // another one may have come first
			}
			time.Sleep(5 * time.Millisecond)
		}
	})
	time.Sleep(100 * time.Millisecond)
	snap := save(t, s, false)
	stop()
	wg.Wait()
	utl(t, "snapshot", "status", snap)
	theirs := upstreamFrom(t, snap)
	time.Sleep(500 * time.Millisecond)
	if want := picture(t, client(t, theirs, false)); harness.IsQuire(t) {
		samePicture(t, "restored", picture(t, client(t, quireFrom(t, snap), false)), want)
	}
}

// TestManyClients lets some clients save at once while others go away or do not read.
func TestManyClients(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	c := client(t, s, false)
	fill(t, c, 5, 100)
	for i := range 30 {
		_, err := c.Put(t.Context(), fmt.Sprint("large", i), strings.Repeat("x", 1<<20))
		must(t, err)
	}
	for range 3 { // these never read
		stream, err := pb.NewMaintenanceClient(s.Conn(t)).Snapshot(t.Context(), &pb.SnapshotRequest{})
		must(t, err)
		_, err = stream.Recv()
		must(t, err)
	}
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(limit(t, time.Minute))
			defer cancel()
			stream, err := pb.NewMaintenanceClient(s.Conn(t)).Snapshot(ctx, &pb.SnapshotRequest{})
			var n int
			for err == nil {
				var r *pb.SnapshotResponse
				if r, err = stream.Recv(); err == nil {
					n += len(r.Blob)
				}
				if i%3 == 0 && n > 1<<20 {
					cancel()
				}
			}
			if i%3 != 0 && (n < 31<<20 || n%512 != 32) {
				t.Errorf("%d bytes came: %v", n, err)
			}
		})
	}
	wg.Wait()
	if harness.IsQuire(t) {
		// Files have no name once they are whole.
		left, err := os.ReadDir(filepath.Join(s.DataDir, "tmp"))
		if err != nil || len(left) > 0 {
			t.Errorf("left in tmp: %v, %v", left, err)
		}
	}
	if _, err := c.Put(t.Context(), "still", "there"); err != nil {
		t.Error(err)
	}
}

// TestExport makes a snapshot of a data directory without a server.
func TestExport(t *testing.T) {
	onlyQuire(t)
	t.Parallel()
	s := harness.Start(t)
	c := client(t, s, false)
	fill(t, c, 6, 200)
	want := picture(t, c)
	snap := filepath.Join(t.TempDir(), "exported.db")
	if o := run(t, harness.Binary(t), "export", "--data-dir", s.DataDir, snap); o.code == 0 || !strings.Contains(o.text, "in use") {
		t.Errorf("export of a data directory in use: %+v", o)
	}
	s.Kill()
	quire(t, "export", "--data-dir", s.DataDir, snap)
	samePicture(t, "upstream, restored", picture(t, client(t, upstreamFrom(t, snap), false)), want)
	s.Restart(t)
	samePicture(t, "afterwards", picture(t, client(t, s, false)), want)
	if o := run(t, harness.Binary(t), "export", "--data-dir", filepath.Join(t.TempDir(), "none"), snap); o.code == 0 {
		t.Errorf("export of nothing: %+v", o)
	}
	if _, err := os.Stat(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Error("export has made a directory")
	}
}
