package auth

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"quire/test/harness"
)

func sleep(millis int) { time.Sleep(time.Duration(millis) * time.Millisecond) }

// stormShare is what writes must keep of their rate while everybody logs in. Hashing may use a quarter of the cores, at
// least one; on two cores with this test's own clients on them, a half is usual.
const stormShare = 0.2

// TestLogInStorm writes with and without a storm of log-ins beside, in turns, and compares the rates; no absolute time
// is promised. A log-in of the storm either succeeds or is told that there are too many.
func TestLogInStorm(t *testing.T) {
	s := connect(t, harness.Start(t, "--bcrypt-cost=10"))
	s.setUp(t)
	ctx := s.as(t, "ranged")
	var storming atomic.Bool
	var done, busy, other atomic.Int64
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 100 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !storming.Load() {
					sleep(5)
					continue
				}
				_, err := s.auth.Authenticate(context.Background(), &pb.AuthenticateRequest{Name: "reader", Password: "pw"})
				switch {
				case err == nil:
					done.Add(1)
				case status.Code(err) == codes.ResourceExhausted:
					busy.Add(1)
					sleep(100)
				default:
					other.Add(1)
				}
			}
		})
	}
	var calm, stormy int
	for range 4 {
		calm = max(calm, s.writes(t, ctx, time.Second))
		storming.Store(true)
		sleep(100)
		stormy = max(stormy, s.writes(t, ctx, time.Second))
		storming.Store(false)
		sleep(100)
	}
	close(stop)
	wg.Wait()
	t.Logf("%d writes a second alone, %d in the storm: %.2f; %d log-ins, %d told to come again", calm, stormy, float64(stormy)/float64(calm), done.Load(), busy.Load())
	if !isQuire(t) {
		t.Skip("upstream's writes stand still: it hashes on as many goroutines as ask")
	}
	if float64(stormy) < stormShare*float64(calm) {
		t.Errorf("%d writes instead of %d", stormy, calm)
	}
	if done.Load() == 0 || other.Load() != 0 {
		t.Errorf("%d log-ins, %d failed", done.Load(), other.Load())
	}
	if busy.Load() == 0 {
		t.Error("the storm never met a bound")
	}
}

// writes counts how many puts one client gets done in a time.
func (s *server) writes(t *testing.T, ctx context.Context, d time.Duration) (n int) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); n++ {
		_, err := s.kv.Put(ctx, put("a/1"))
		check(t, err)
	}
	return n
}
