package realclient

import (
	"fmt"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestWatchManualProgress(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	w := s.openWatch(t)
	w.askProgress() // a stream without watchers has nothing to tell
	w.quiet()
	w.create(watchKey("a", ""))
	w.create(watchKey("b", ""))
	w.askProgress()
	w.expect("id -1 rev 1") // one for the whole stream
	mustPut(t, s.kv, put("x", "1"))
	w.askProgress()
	w.expect("id -1 rev 2")
	mustPut(t, s.kv, put("a", "1"))
	w.expect("id 0: put a=1(3,3,1)")
	w.askProgress()
	w.expect("id -1 rev 3")
	w.quiet()
}

// TestWatchProgressNeverOvertakesEvents asks for progress all the time while watchers catch up with the past and events
// flow; a progress revision promises that everything up to it was delivered on the stream.
func TestWatchProgressNeverOvertakesEvents(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	const history, live, watchers = 400, 400, 20
	for i := range history {
		mustPut(t, s.kv, put("k", fmt.Sprint(i)))
	}
	w := s.openWatch(t)
	for range watchers {
		w.send(watchFrom("k", "", 2))
		w.askProgress()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range live {
			time.Sleep(2 * time.Millisecond) // long enough for the watchers to catch up on the way
			_, _ = s.kv.Put(s.ctx, put("k", fmt.Sprint(i)))
			if i%5 == 0 {
				_ = w.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}})
			}
		}
	}()
	seen := make([]int64, watchers) // by watch id: the newest revision delivered
	const last = int64(history + live + 1)
	notices := 0
	for behind := true; behind; {
		resp := w.next()
		switch {
		case resp.Created:
		case len(resp.Events) > 0:
			for _, e := range resp.Events {
				if was := seen[resp.WatchId]; was != 0 && e.Kv.ModRevision != was+1 {
					t.Fatalf("watcher %d: revision %d after %d", resp.WatchId, e.Kv.ModRevision, was)
				}
				seen[resp.WatchId] = e.Kv.ModRevision
			}
		default:
			notices++
			for id, rev := range seen {
				if rev != 0 && rev < resp.GetHeader().GetRevision() {
					t.Fatalf("progress at %d while watcher %d has seen %d", resp.GetHeader().GetRevision(), id, rev)
				}
			}
		}
		behind = false
		for _, rev := range seen {
			behind = behind || rev < last
		}
	}
	<-done
	w.askProgress()
	for resp := w.next(); ; resp = w.next() {
		if resp.GetHeader().GetRevision() == last && len(resp.Events) == 0 {
			break
		}
	}
	t.Logf("%d progress notices while events flowed", notices)
}

func TestWatchProgressNotifyInterval(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--watch-progress-notify-interval", "200ms")
	mustPut(t, s.kv, put("x", "1"))
	w := s.openWatch(t)
	r := watchKey("a", "")
	r.ProgressNotify = true
	w.create(r)
	silent := s.openWatch(t)
	silent.create(watchKey("a", ""))
	start := time.Now()
	for range 3 {
		resp := w.next()
		equal(t, "notice", watchText(resp), "id 0 rev 2")
	}
	if took := time.Since(start); took < 300*time.Millisecond || took > 3*time.Second {
		t.Errorf("three notices took %v", took)
	}
	silent.quiet() // did not ask for them
}

func TestWatchProgressNotifyIsNotSentForTheFuture(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--watch-progress-notify-interval", "100ms")
	w := s.openWatch(t)
	r := watchFrom("a", "", 5)
	r.ProgressNotify = true
	w.create(r)
	w.quiet()
}
