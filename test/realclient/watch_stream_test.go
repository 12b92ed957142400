package realclient

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
)

const (
	arriveLimit = time.Minute            // for what must come
	quietTime   = 300 * time.Millisecond // in which what must not come would have come
)

// stream is one open Watch call. What the server sends is read at once and queued without limit, unless held.
type stream struct {
	t    *testing.T
	rpc  pb.Watch_WatchClient
	got  chan *pb.WatchResponse
	hold chan struct{} // closed: read on
}

// openWatch opens a stream whose responses are read as they come.
func (s *server) openWatch(t *testing.T) *stream {
	t.Helper()
	w := s.openHeldWatch(t, s.ctx)
	close(w.hold)
	return w
}

// openHeldWatch opens a stream that reads nothing until its hold channel is closed.
func (s *server) openHeldWatch(t *testing.T, ctx context.Context) *stream {
	t.Helper()
	rpc, err := s.watch.Watch(ctx)
	check(t, err)
	w := &stream{t: t, rpc: rpc, got: make(chan *pb.WatchResponse, 100_000), hold: make(chan struct{})}
	go func() {
		defer close(w.got)
		select {
		case <-w.hold:
		case <-ctx.Done():
			return
		}
		for {
			resp, err := rpc.Recv()
			if err != nil {
				return
			}
			w.got <- resp
		}
	}()
	return w
}

// send creates a watcher without waiting for the answer.
func (w *stream) send(r *pb.WatchCreateRequest) {
	w.t.Helper()
	check(w.t, w.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}))
}

// create makes a watcher and returns its id.
func (w *stream) create(r *pb.WatchCreateRequest) int64 {
	w.t.Helper()
	w.send(r)
	resp := w.next()
	if !resp.Created || resp.Canceled || len(resp.Events) > 0 {
		w.t.Fatalf("answer to a create request: %s", watchText(resp))
	}
	return resp.WatchId
}

func (w *stream) cancel(id int64) {
	w.t.Helper()
	check(w.t, w.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}))
}

func (w *stream) askProgress() {
	w.t.Helper()
	check(w.t, w.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}))
}

// next is the next response; the test fails when none comes.
func (w *stream) next() *pb.WatchResponse {
	w.t.Helper()
	select {
	case resp, ok := <-w.got:
		if !ok {
			w.t.Fatal("the stream has ended")
		}
		return resp
	case <-time.After(arriveLimit):
		w.t.Fatalf("no watch response within %v", arriveLimit)
	}
	return nil
}

// expect checks the next responses, one after another.
func (w *stream) expect(texts ...string) {
	w.t.Helper()
	for _, want := range texts {
		if got := watchText(w.next()); got != want {
			w.t.Fatalf("watch response:\n got %s\nwant %s", got, want)
		}
	}
}

// quiet checks that nothing comes for a while.
func (w *stream) quiet() {
	w.t.Helper()
	select {
	case resp, ok := <-w.got:
		if ok {
			w.t.Fatalf("unexpected watch response: %s", watchText(resp))
		}
		w.t.Fatal("the stream has ended")
	case <-time.After(quietTime):
	}
}

// events reads responses of one watcher until it has n events.
func (w *stream) events(n int) []*mvccpb.Event {
	w.t.Helper()
	var all []*mvccpb.Event
	for len(all) < n {
		resp := w.next()
		if resp.Canceled || resp.Created {
			w.t.Fatalf("among events: %s", watchText(resp))
		}
		all = append(all, resp.Events...)
	}
	if len(all) != n {
		w.t.Fatalf("%d events, expected %d", len(all), n)
	}
	return all
}

// watchText is a response as text. The header's revision is shown where there are no events; with events it need only be
// at least theirs.
func watchText(r *pb.WatchResponse) string {
	s := fmt.Sprintf("id %d", r.WatchId)
	if r.Created {
		s += " created"
	}
	if r.Canceled {
		s += " canceled"
	}
	if r.CompactRevision != 0 {
		s += fmt.Sprintf(" compacted %d", r.CompactRevision)
	}
	if r.CancelReason != "" {
		s += fmt.Sprintf(" because %q", r.CancelReason)
	}
	if r.Fragment {
		s += " fragment"
	}
	if len(r.Events) == 0 {
		return s + fmt.Sprintf(" rev %d", r.GetHeader().GetRevision())
	}
	var evs []string
	for _, e := range r.Events {
		evs = append(evs, eventText(e))
		if e.Kv.ModRevision > r.GetHeader().GetRevision() {
			s += fmt.Sprintf(" HEADER REVISION %d", r.GetHeader().GetRevision())
		}
	}
	return s + ": " + strings.Join(evs, "; ")
}

func eventsText(evs []*mvccpb.Event) string {
	var parts []string
	for _, e := range evs {
		parts = append(parts, eventText(e))
	}
	return strings.Join(parts, "; ")
}
