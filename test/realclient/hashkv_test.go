package realclient

import (
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"quire/test/harness"
)

// TestHashKVEqualsUpstreams replays one random history to the server under test and to upstream: at every revision both
// must give the same hash, through compactions and a restart.
func TestHashKVEqualsUpstreams(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2, 3} {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			ours, theirs := startServer(t), connect(t, harness.StartUpstream(t))
			random, compacted := rand.New(rand.NewPCG(seed, 0)), int64(0)
			for step := range 6 {
				seed := random.Uint64()
				history(t, ours, seed)
				history(t, theirs, seed)
				compareHashes(t, ours, theirs, compacted)
				if step == 3 {
					ours.Kill()
					ours.Restart(t)
				}
				revision := theirs.revision(t)
				compacted = revision - random.Int64N(60)
				mustCompact(t, ours.kv, compacted)
				mustCompact(t, theirs.kv, compacted)
				compareHashes(t, ours, theirs, compacted)
			}
		})
	}
}

// history sends a hundred random writes.
func history(t *testing.T, s *server, seed uint64) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 1))
	key := func() string { return fmt.Sprintf("k%02d", random.IntN(25)) }
	for range 100 {
		switch n := random.IntN(20); {
		case n < 11:
			mustPut(t, s.kv, put(key(), fmt.Sprint(random.Uint64())))
		case n < 14:
			mustDel(t, s.kv, del(key(), ""))
		case n < 15:
			from := random.IntN(25)
			mustDel(t, s.kv, del(fmt.Sprintf("k%02d", from), fmt.Sprintf("k%02d", from+random.IntN(4))))
		default:
			_, _ = s.kv.Txn(s.ctx, then(opPut(put(key(), "t")), opPut(put(key(), "u")), opDel(del(key(), "")))) // may name a key twice
		}
	}
}

// compareHashes asks both for the hash at the newest and some older revisions.
func compareHashes(t *testing.T, ours, theirs *server, compacted int64) {
	t.Helper()
	newest := theirs.revision(t)
	for _, rev := range []int64{0, newest, newest - 1, newest - 7, newest - 20, newest - 40, newest - 60, 1, newest + 1, -1} {
		if rev == compacted { // for this one upstream answers, until a restart, with a hash of before the compaction
			continue
		}
		equal(t, fmt.Sprint("hash at ", rev, " of ", newest), hashAt(ours, rev), hashAt(theirs, rev))
	}
}

func hashAt(s *server, rev int64) string {
	resp, err := s.maintenance.HashKV(s.ctx, &pb.HashKVRequest{Revision: rev})
	if err != nil {
		return errText(err)
	}
	return fmt.Sprintf("hash %d of revision %d compacted %d at %d", resp.Hash, resp.HashRevision, resp.CompactRevision, resp.GetHeader().GetRevision())
}

// TestHashKVRemembersCompactions: the last revisions that were compacted to answer with the hash of before, those below
// the compact revision among them.
func TestHashKVRemembersCompactions(t *testing.T) {
	t.Parallel()
	ours, theirs := startServer(t), connect(t, harness.StartUpstream(t))
	var compacted []int64
	for step := range 14 {
		for _, s := range []*server{ours, theirs} {
			history(t, s, uint64(step))
		}
		rev := theirs.revision(t) - int64(step)
		compacted = append(compacted, rev)
		for _, s := range []*server{ours, theirs} {
			_, err := s.kv.Compact(s.ctx, &pb.CompactionRequest{Revision: rev, Physical: true})
			check(t, err)
		}
		for _, rev := range compacted {
			equal(t, fmt.Sprintf("hash at %d of compactions at %v", rev, compacted), hashAt(ours, rev), hashAt(theirs, rev))
		}
	}
}
