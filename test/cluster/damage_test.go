package cluster

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quire/test/harness"
)

// flipPages flips a bit in each block of the pages of a server's store, behind the
// server's back.
func flipPages(t *testing.T, s *harness.Server) {
	t.Helper()
	var files []string
	check(t, filepath.Walk(filepath.Join(s.DataDir, "store"), func(path string, info os.FileInfo, err error) error {
		if err == nil && strings.HasSuffix(path, ".pages") {
			files = append(files, path)
		}
		return err
	}))
	flipped := 0
	for _, name := range files {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		check(t, err)
		b, err := os.ReadFile(name)
		check(t, err)
		for at := 0; at+4096 <= len(b); at += 4096 {
			i := at + 100 + rand.IntN(200)
			if b[i] == 0 {
				continue // padding perhaps
			}
			_, err := f.WriteAt([]byte{b[i] ^ 4}, int64(i))
			check(t, err)
			flipped++
		}
		check(t, f.Close())
	}
	if flipped == 0 {
		t.Fatal("no page to damage")
	}
}

// TestDamagedStore: a member whose pages rot, while it runs or while it does not,
// serves nothing of them and comes back by itself with what the others have.
func TestDamagedStore(t *testing.T) {
	c, ctx := harness.StartCluster(t, 3, "--snapshot-count=50"), harness.Context(t)
	fill(ctx, t, c.Client(t), 400)
	for round, victim := range []*harness.Server{c.Leader(t), c.Servers[0], c.Servers[1]} {
		switch round {
		case 0: // a leader, while it runs
			time.Sleep(11 * time.Second) // a checkpoint at the least every ten seconds
			fill(ctx, t, c.Client(t), 60)
			flipPages(t, victim)
			if !victim.Log.Wait("the store is damaged", 60*time.Second) {
				t.Fatal("the damage is not found")
			}
			if !victim.Log.Wait("rebuilt the store from another member", 60*time.Second) {
				t.Fatal("the store is not rebuilt")
			}
			victim.Ready(t)
		default: // while it does not run
			victim.Stop(t)
			fill(ctx, t, c.Client(t, c.Others(victim)...), 80)
			flipPages(t, victim)
			victim.Restart(t)
			if !victim.Log.Wait("rebuilt the store from another member", 60*time.Second) {
				t.Fatal("the store is not rebuilt")
			}
		}
		deadline := time.Now().Add(30 * time.Second)
		for _, err := c.Client(t, victim).Get(ctx, "fill/0001"); err != nil && time.Now().Before(deadline); _, err = c.Client(t, victim).Get(ctx, "fill/0001") {
			time.Sleep(100 * time.Millisecond)
		}
		sameData(ctx, t, c)
	}
}
