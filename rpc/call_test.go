package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "quire/api/etcdserverpb"
)

func putBytes(t testing.TB, key, value string) []byte {
	t.Helper()
	b, err := (&pb.PutRequest{Key: []byte(key), Value: []byte(value)}).MarshalVT()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	putMethod   = "/etcdserverpb.KV/Put"
	rangeMethod = "/etcdserverpb.KV/Range"
)

func TestRequestTimesOut(t *testing.T) {
	for _, method := range []string{putMethod, rangeMethod} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			f.hold = true
			s := newTestServer(t, f, func(c *Config) { c.ElectionTimeout = 500 * time.Millisecond })
			start := time.Now()
			_, err := s.Invoke(context.Background(), method, putBytes(t, "k", ""))
			wantStatus(t, err, codes.Unavailable, "etcdserver: request timed out")
			if took := time.Since(start); took < 6*time.Second || took > 6*time.Second+2*watchdogTick {
				t.Errorf("timed out after %v, want 5 s and two elections", took)
			}
			f.flush() // the late answer meets nobody
			if p := s.proposals.pending.Load(); p != 0 {
				t.Errorf("%d proposals pending", p)
			}
		})
	}
}

func TestClientGoesAway(t *testing.T) {
	f := newFake()
	f.hold = true
	s := newTestServer(t, f)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		time.Sleep(5 * time.Millisecond)
		cancel()
	}()
	_, err := s.Invoke(ctx, putMethod, putBytes(t, "k", "v"))
	if status.Code(err) != codes.Canceled {
		t.Errorf("got %v, want Canceled", err)
	}
	f.flush()
	// The object may serve the next call, which sees nothing of the first.
	f.mu.Lock()
	f.hold = false
	f.mu.Unlock()
	if _, err := s.Invoke(context.Background(), putMethod, putBytes(t, "k2", "v")); err != nil {
		t.Error(err)
	}
}

// TestCallsSurviveEveryOrder lets clients cancel, proposals come back late and
// reads wait, all at random, and checks that every answer belongs to its
// question.
func TestCallsSurviveEveryOrder(t *testing.T) {
	f := newFake()
	f.hold = true
	s := newTestServer(t, f)
	stop := make(chan struct{})
	var flusher sync.WaitGroup
	flusher.Go(func() {
		for {
			select {
			case <-stop:
				f.flush()
				return
			default:
				f.flush()
				time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			}
		}
	})
	flusher.Go(func() { // clients that go away are noticed at any moment
		for {
			select {
			case <-stop:
				return
			default:
				s.dog.expire(time.Now())
			}
		}
	})
	var clients sync.WaitGroup
	for c := range 16 {
		clients.Go(func() {
			for i := range 150 {
				key := fmt.Sprintf("k%d-%d", c, i)
				if err := oneRoundTrip(t, s, key); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	flusher.Wait()
	if p := s.proposals.pending.Load(); p != 0 {
		t.Errorf("%d proposals pending", p)
	}
	for i := range s.dog.shards {
		if h := &s.dog.shards[i].head; h.next != h {
			t.Errorf("shard %d still watches a call", i)
		}
	}
}

func oneRoundTrip(t *testing.T, s *Server, key string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(400))*time.Microsecond)
	defer cancel()
	if rand.IntN(3) == 0 {
		ctx = context.Background()
	}
	if _, err := s.Invoke(ctx, putMethod, putBytes(t, key, "of "+key)); err != nil {
		if StatusOf(err).Code == codes.DeadlineExceeded {
			return nil
		}
		return err
	}
	req, _ := (&pb.RangeRequest{Key: []byte(key)}).MarshalVT()
	out, err := s.Invoke(context.Background(), rangeMethod, req)
	if err != nil {
		return err
	}
	var resp pb.RangeResponse
	if err := resp.UnmarshalVT(out); err != nil {
		return err
	}
	if len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "of "+key {
		return fmt.Errorf("%s: got %v", key, &resp)
	}
	return nil
}

func TestRequestLimitIsThatOfEtcdsEnvelope(t *testing.T) {
	f := newFake()
	s := newTestServer(t, f, func(c *Config) { c.MaxRequestBytes = 1000 })
	put := func(size int) error {
		// 1000 = 14 of header + 3 of the put's tag and length + the request:
		// 3 of key, 3 of the value's tag and length.
		_, err := s.Invoke(context.Background(), putMethod, putBytes(t, "k", string(make([]byte, size))))
		return err
	}
	if err := put(1000 - 14 - 3 - 3 - 3); err != nil {
		t.Errorf("at the limit: %v", err)
	}
	wantStatus(t, put(1000-14-3-3-3+1), codes.InvalidArgument, "etcdserver: request is too large")
}

func TestConfigNamesEveryMissingPart(t *testing.T) {
	_, err := New(Config{})
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) || len(joined.Unwrap()) != 18 {
		t.Errorf("got %v", err)
	}
}
