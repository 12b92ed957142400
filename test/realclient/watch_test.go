package realclient

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
)

func watchKey(key, end string) *pb.WatchCreateRequest {
	return &pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}
}

func watchFrom(key, end string, rev int64) *pb.WatchCreateRequest {
	r := watchKey(key, end)
	r.StartRevision = rev
	return r
}

func TestWatchEventsOfOneKey(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	w.send(watchKey("k", ""))
	w.expect("id 0 created rev 1")
	mustPut(t, s.kv, put("k", "1"))
	w.expect("id 0: put k=1(2,2,1)")
	mustPut(t, s.kv, put("j", "1"))
	mustPut(t, s.kv, put("kk", "1"))
	mustPut(t, s.kv, put("k", "2"))
	w.expect("id 0: put k=2(2,5,2)")
	mustDel(t, s.kv, del("k", ""))
	w.expect("id 0: delete k=(0,6,0)")
	mustDel(t, s.kv, del("k", ""))
	mustPut(t, s.kv, put("k", "3"))
	w.expect("id 0: put k=3(7,7,1)")
}

func TestWatchHeaderRevisionIsThatOfTheEvent(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	w.create(watchKey("k", ""))
	for i := range 3 {
		rev := mustPut(t, s.kv, put("k", "v"))
		h := w.next().GetHeader()
		equal(t, fmt.Sprint("put ", i), h.GetRevision(), rev)
		equal(t, "ids are set", h.GetClusterId() != 0 && h.GetMemberId() != 0 && h.GetRaftTerm() != 0, true)
	}
}

func TestWatchRanges(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name     string
		key, end string
		want     string // the keys seen of \x00 a b b/1 b/2 c
	}{
		{"key", "b", "", "b"},
		{"range", "a", "b/2", "a b b/1"},
		{"prefix", "b/", "b0", "b/1 b/2"},
		{"from a key on", "b/2", "\x00", "b/2 c"},
		{"all", "\x00", "\x00", "0 a b b/1 b/2 c"},
		{"an empty key means the smallest", "", "", "0"},
		{"an empty key and an end", "", "b", "0 a"},
		{"everything from an empty key", "", "\x00", "0 a b b/1 b/2 c"},
	}
	s := startServer(t)
	streams := make([]*stream, len(tests))
	for i, tt := range tests {
		streams[i] = s.openWatch(t)
		streams[i].create(watchKey(tt.key, tt.end))
	}
	for _, key := range []string{"\x00", "a", "b", "b/1", "b/2", "c"} {
		mustPut(t, s.kv, put(key, "v"))
	}
	for i, tt := range tests {
		got := ""
		for got != tt.want && len(got) < len(tt.want) {
			for _, e := range streams[i].next().Events {
				key := string(e.Kv.Key)
				if key == "\x00" {
					key = "0"
				}
				if got != "" {
					got += " "
				}
				got += key
			}
		}
		equal(t, tt.name, got, tt.want)
	}
}

func TestWatchPrevKv(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	r := watchKey("k", "")
	r.PrevKv = true
	w.create(r)
	mustPut(t, s.kv, put("k", "1"))
	mustPut(t, s.kv, put("k", "2"))
	mustDel(t, s.kv, del("k", ""))
	mustPut(t, s.kv, put("k", "3"))
	mustTxn(t, s.kv, then(opPut(put("j", "1")), opPut(put("k", "4"))))
	equal(t, "events", eventsText(w.events(5)),
		"put k=1(2,2,1); put k=2(2,3,2) prev k=1(2,2,1); delete k=(0,4,0) prev k=2(2,3,2); put k=3(5,5,1); put k=4(5,6,2) prev k=3(5,5,1)")
	past := s.openWatch(t)
	r.StartRevision = 3
	past.create(r)
	equal(t, "events of the past", eventsText(past.events(4)),
		"put k=2(2,3,2) prev k=1(2,2,1); delete k=(0,4,0) prev k=2(2,3,2); put k=3(5,5,1); put k=4(5,6,2) prev k=3(5,5,1)")
}

func TestWatchPrevKvOfACompactedRevisionIsAbsent(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for i := range 3 {
		mustPut(t, s.kv, put("k", fmt.Sprint(i)))
	}
	mustCompact(t, s.kv, 3)
	w := s.openWatch(t)
	r := watchFrom("k", "", 3)
	r.PrevKv = true
	w.create(r)
	equal(t, "events", eventsText(w.events(2)), "put k=1(2,3,2); put k=2(2,4,3) prev k=1(2,3,2)")
}

func TestWatchOneTxnIsOneResponse(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	mustPut(t, s.kv, put("z", "1"))
	live := s.openWatch(t)
	live.create(watchKey("\x00", "\x00"))
	mustTxn(t, s.kv, then(opPut(put("c", "1")), opDel(del("z", "")), opPut(put("a", "1")), opGet(get("a", ""))))
	const events = "id 0: put c=1(3,3,1); delete z=(0,3,0); put a=1(3,3,1)"
	live.expect(events)
	past := s.openWatch(t)
	past.create(watchFrom("\x00", "\x00", 3))
	past.expect(events)
}

func TestWatchDeleteRangeComesInKeyOrderInOneResponse(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for _, key := range []string{"c", "a", "b"} {
		mustPut(t, s.kv, put(key, "v"))
	}
	w := s.openWatch(t)
	w.create(watchKey("a", "z"))
	mustDel(t, s.kv, del("a", "c"))
	w.expect("id 0: delete a=(0,5,0); delete b=(0,5,0)")
}

func TestWatchFromThePast(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	const n = 3000
	for i := range n {
		mustPut(t, s.kv, put(fmt.Sprintf("k%d", i%7), fmt.Sprint(i)))
	}
	w := s.openWatch(t)
	w.create(watchFrom("k", "l", 2))
	for i := range 100 {
		mustPut(t, s.kv, put(fmt.Sprintf("k%d", i%7), "later"))
	}
	for i, e := range w.events(n + 100) {
		if e.Kv.ModRevision != int64(i+2) {
			t.Fatalf("event %d has revision %d, expected %d", i, e.Kv.ModRevision, i+2)
		}
	}
}

func TestWatchStartRevisions(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	for i := range 4 {
		mustPut(t, s.kv, put("k", fmt.Sprint(i))) // revisions 2 to 5
	}
	mustCompact(t, s.kv, 3)
	tests := []struct {
		rev  int64
		want []string
	}{
		{0, []string{"id 0 created rev 5"}},
		{2, []string{"id 0 created rev 5", "id 0 canceled compacted 3 rev 0"}},
		{1, []string{"id 0 created rev 5", "id 0 canceled compacted 3 rev 0"}},
		{3, []string{"id 0 created rev 5", "id 0: put k=1(2,3,2); put k=2(2,4,3); put k=3(2,5,4)"}},
		{5, []string{"id 0 created rev 5", "id 0: put k=3(2,5,4)"}},
		{6, []string{"id 0 created rev 5"}},
		{-1, []string{`id -1 created canceled because "etcdserver: mvcc: required revision has been compacted" rev 5`}},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.rev), func(t *testing.T) {
			t.Parallel()
			w := s.openWatch(t)
			w.send(watchFrom("k", "", tt.rev))
			w.expect(tt.want...)
			w.quiet()
		})
	}
}

func TestWatchFromTheFutureGetsNothingOlder(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	w.create(watchFrom("k", "", 5))
	for i := range 3 {
		mustPut(t, s.kv, put("k", fmt.Sprint(i))) // revisions 2 to 4
	}
	w.askProgress()
	w.quiet()
	mustPut(t, s.kv, put("k", "x"))
	w.expect("id 0: put k=x(2,5,4)")
	w.askProgress()
	w.expect("id -1 rev 5")
}

func TestWatchFilters(t *testing.T) {
	t.Parallel()
	const noPut, noDelete = pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE
	s := startServer(t)
	tests := []struct {
		filters []pb.WatchCreateRequest_FilterType
		want    string
	}{
		{[]pb.WatchCreateRequest_FilterType{noPut}, "id 0: delete k=(0,3,0)"},
		{[]pb.WatchCreateRequest_FilterType{noDelete}, "id 0: put k=1(2,2,1)"},
		{[]pb.WatchCreateRequest_FilterType{noPut, noDelete}, ""},
		{nil, "id 0: put k=1(2,2,1)"},
	}
	streams := make([]*stream, len(tests))
	for i, tt := range tests {
		streams[i] = s.openWatch(t)
		r := watchKey("k", "")
		r.Filters = tt.filters
		streams[i].create(r)
	}
	mustPut(t, s.kv, put("k", "1"))
	mustDel(t, s.kv, del("k", ""))
	for i, tt := range tests {
		if tt.want == "" {
			streams[i].quiet()
			continue
		}
		streams[i].expect(tt.want)
	}
}

func TestWatchIds(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	chosen := func(id int64) *pb.WatchCreateRequest {
		r := watchKey("k", "")
		r.WatchId = id
		return r
	}
	w.send(chosen(0))
	w.expect("id 0 created rev 1")
	w.send(chosen(0))
	w.expect("id 1 created rev 1")
	w.send(chosen(2))
	w.expect("id 2 created rev 1")
	w.send(chosen(0))
	w.expect("id 3 created rev 1") // 2 is taken
	w.send(chosen(70))
	w.expect("id 70 created rev 1")
	w.send(chosen(70))
	w.expect(`id -1 created canceled because "mvcc: duplicate watch ID provided on the WatchStream" rev 1`)
	w.send(chosen(-5))
	w.expect("id -5 created rev 1")
	w.cancel(1)
	w.expect("id 1 canceled rev 1")
	w.send(chosen(0))
	w.expect("id 4 created rev 1") // an automatic id is not given again
	w.send(chosen(1))
	w.expect("id 1 created rev 1")
	other := s.openWatch(t)
	other.send(chosen(0))
	other.expect("id 0 created rev 1") // ids belong to the stream
}

func TestWatchOfAnEmptyRangeIsRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	for _, r := range []*pb.WatchCreateRequest{watchKey("b", "a"), watchKey("b", "b")} {
		w.send(r)
		w.expect(`id -1 created canceled because "mvcc: watcher range is empty" rev 1`)
	}
	w.send(watchKey("b", "c"))
	w.expect("id 0 created rev 1")
}

func TestWatchCancel(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	w.create(watchKey("a", ""))
	w.create(watchKey("a", ""))
	w.cancel(0)
	w.expect("id 0 canceled rev 1")
	mustPut(t, s.kv, put("a", "1"))
	w.expect("id 1: put a=1(2,2,1)")
	w.cancel(0) // twice
	w.cancel(9) // never was
	w.quiet()
	w.cancel(1)
	w.expect("id 1 canceled rev 2")
	mustPut(t, s.kv, put("a", "2"))
	w.quiet()
}

func TestWatchRequestWithoutAUnionIsIgnored(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	check(t, w.rpc.Send(&pb.WatchRequest{}))
	w.send(watchKey("a", ""))
	w.expect("id 0 created rev 1")
}

func TestWatchGoesOnAfterTheClientHasHalfClosed(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	w.create(watchKey("a", ""))
	check(t, w.rpc.CloseSend())
	w.quiet()
	mustPut(t, s.kv, put("a", "1"))
	w.expect("id 0: put a=1(2,2,1)")
}

func TestWatchWithTheRequireLeaderMark(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openHeldWatch(t, metadata.AppendToOutgoingContext(s.ctx, "hasleader", "true"))
	close(w.hold)
	w.create(watchKey("a", ""))
	mustPut(t, s.kv, put("a", "1"))
	w.expect("id 0: put a=1(2,2,1)")
}
