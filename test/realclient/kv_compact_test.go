package realclient

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestCompactKeepsWhatIsNewestAtItsRevision(t *testing.T) {
	t.Parallel()
	for _, physical := range []bool{false, true} {
		t.Run(fmt.Sprint("physical ", physical), func(t *testing.T) {
			t.Parallel()
			ctx, kv := kvClient(t)
			rangeHistory(t, kv)
			resp, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 7, Physical: physical})
			check(t, err)
			equal(t, "revision in the header", resp.GetHeader().GetRevision(), int64(9))
			at := func(rev int64) string {
				req := get("a/", "a0")
				req.Revision = rev
				return rangeText(mustGet(t, kv, req))
			}
			equal(t, "at the compact revision", at(7), "rev 9 count 2: a/1=4(2,5,2) a/3=2(4,4,1)")
			equal(t, "after it", at(8), "rev 9 count 3: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1)")
			equal(t, "now", at(0), "rev 9 count 5: a/1=4(2,5,2) a/2=5(8,8,1) a/3=2(4,4,1) a/4=0(9,9,1) a/5=9(9,9,1)")
		})
	}
}

func TestCompactRefusals(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	rangeHistory(t, kv)
	const compacted = "OutOfRange: etcdserver: mvcc: required revision has been compacted"
	steps := []struct {
		rev  int64
		want string
	}{
		{10, "OutOfRange: etcdserver: mvcc: required revision is a future revision"},
		{-1, compacted},
		{0, ""}, // once: a fresh store has compacted nothing, not even revision 0
		{0, compacted},
		{5, ""},
		{5, compacted},
		{4, compacted},
		{9, ""},
	}
	for _, st := range steps {
		_, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: st.rev})
		equal(t, fmt.Sprint("compact ", st.rev), errText(err), st.want)
	}
	equal(t, "the revision did not move", rangeText(mustGet(t, kv, get("b", ""))), "rev 9 count 1: b=x(6,6,1)")
}

func TestCompactAtTheNewestRevisionThatIsADelete(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	mustPut(t, s.kv, put("k", "v"))
	mustDel(t, s.kv, del("k", ""))
	mustCompact(t, s.kv, 3)
	equal(t, "revision", s.revision(t), int64(3))
	s.Kill()
	s.Restart(t)
	equal(t, "revision after a restart", s.revision(t), int64(3))
	_, err := s.kv.Range(s.ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 2})
	equal(t, "compaction after a restart", errText(err), "OutOfRange: etcdserver: mvcc: required revision has been compacted")
	equal(t, "next put", mustPut(t, s.kv, put("k", "v")), int64(4))
	equal(t, "is a new key", rangeText(mustGet(t, s.kv, get("k", ""))), "rev 4 count 1: k=v(4,4,1)")
}

func TestPrevKvOfACompactedRevisionIsStillThereWhenItIsTheNewest(t *testing.T) {
	t.Parallel()
	ctx, kv := kvClient(t)
	mustPut(t, kv, put("k", "1"))
	mustPut(t, kv, put("x", "1"))
	mustCompact(t, kv, 3)
	resp, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("2"), PrevKv: true})
	check(t, err)
	equal(t, "put", putText(resp), "put rev 4 prev k=1(2,2,1)")
}

func TestAutoCompactionByRevision(t *testing.T) {
	t.Parallel()
	_, kv := kvClient(t, "--auto-compaction-mode", "revision", "--auto-compaction-retention", "1")
	for i := range 5 {
		mustPut(t, kv, put("k", fmt.Sprint(i)))
	}
	// It runs every five minutes: only that the flags are taken is seen here.
	equal(t, "newest", rangeText(mustGet(t, kv, get("k", ""))), "rev 6 count 1: k=4(2,6,5)")
}

func TestAutoCompactionByPeriod(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--auto-compaction-mode", "periodic", "--auto-compaction-retention", "1s")
	for i := range 5 {
		mustPut(t, s.kv, put("k", fmt.Sprint(i)))
	}
	eventually(t, "revision 2 is compacted", func() bool {
		_, err := s.kv.Range(s.ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 2})
		return errText(err) == "OutOfRange: etcdserver: mvcc: required revision has been compacted"
	})
}
