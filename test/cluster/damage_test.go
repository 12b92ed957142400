package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
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

// flipLogEnd flips a bit in the newest batch of a server's log; the server does not run.
func flipLogEnd(t *testing.T, s *harness.Server) {
	t.Helper()
	dir := filepath.Join(s.DataDir, "wal")
	out, err := exec.Command(harness.Binary(t), "dump", "wal", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	segment, off := "", int64(0)
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		if len(words) > 1 && words[0] == "segment" {
			if strings.HasSuffix(strings.TrimSpace(line), "ready") {
				break
			}
			segment = strings.TrimSuffix(words[1], ",")
		} else if n, err := strconv.ParseInt(words[0], 10, 64); err == nil && len(words) >= 10 { // a row of the table
			off = n
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, segment), os.O_RDWR, 0)
	check(t, err)
	defer f.Close()
	var b [1]byte
	at := off + 20 + rand.Int64N(60)
	_, err = f.ReadAt(b[:], at)
	check(t, err)
	_, err = f.WriteAt([]byte{b[0] ^ 1<<rand.IntN(8)}, at)
	check(t, err)
	t.Logf("damaged byte %d of %s", at, segment)
}

// TestDamagedLogEnd: a member that is killed under load, and of whose log the newest
// batch rots before it starts again, is brought up to date by the leader and takes
// part in elections again.
func TestDamagedLogEnd(t *testing.T) {
	c, ctx := harness.StartCluster(t, 3), harness.Context(t)
	for round := range 3 {
		victim := c.Servers[round]
		others := c.Others(victim)
		loading, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		cli := c.Client(t, others...)
		go func() {
			defer close(done)
			for i := 0; loading.Err() == nil; i++ {
				_, _ = cli.Put(loading, fmt.Sprintf("load/%d/%d", round, i%100), strings.Repeat("v", i%3000))
			}
		}()
		time.Sleep(500 * time.Millisecond)
		victim.Kill()
		flipLogEnd(t, victim)
		victim.Restart(t)
		if !victim.Log.Wait("the end of the log was damaged and is cut off", 20*time.Second) {
			t.Error("the damage is not told")
		}
		if !victim.Log.Wait("the log is complete again", 30*time.Second) {
			t.Error("the log is not completed")
		}
		stop()
		<-done
		sameData(ctx, t, c)
		// It can be the leader again.
		id := victim.MemberID(t)
		for try := 0; c.Leader(t) != victim; try++ {
			if try == 20 {
				t.Fatal("the member does not become the leader")
			}
			_, _ = c.Client(t, c.Leader(t)).MoveLeader(ctx, id) // whether it worked is seen
			time.Sleep(100 * time.Millisecond)
		}
	}
}
