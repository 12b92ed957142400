package lockstep

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// watchSide is the one watch stream of a side. What came is kept for each watcher until the next sync.
type watchSide struct {
	rpc    pb.Watch_WatchClient
	got    chan *pb.WatchResponse
	events map[int64][]proto.Message // by watch id
	open   map[int64]bool            // the ids of watchers that are there
}

// watching is the side's long-lived stream, opened when there is none.
func (s *side) watching(t *testing.T) *watchSide {
	t.Helper()
	if s.watch == nil {
		s.watch = s.openWatch(t, context.Background()) // ends with the connection
	}
	return s.watch
}

func (s *side) openWatch(t *testing.T, ctx context.Context) *watchSide {
	t.Helper()
	rpc, err := pb.NewWatchClient(s.conn).Watch(ctx)
	if err != nil {
		t.Fatalf("%s: %v", s.name, err)
	}
	w := &watchSide{rpc: rpc, got: make(chan *pb.WatchResponse, 100_000), events: map[int64][]proto.Message{}, open: map[int64]bool{}}
	go func() {
		defer close(w.got)
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

// watchAlone opens a stream for one watcher, reads what is there for it now, and closes the stream.
func (s *side) watchAlone(t *testing.T, r *pb.WatchCreateRequest) answer {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w := s.openWatch(t, ctx)
	created := w.create(r)
	if created.code != "" || !w.open[created.responses[0].(*pb.WatchResponse).WatchId] {
		return created
	}
	revision := s.revision(t)
	var rest answer
	switch {
	case r.StartRevision > revision: // upstream tells such a watcher nothing, not even its progress
	case r.StartRevision != 0 && r.StartRevision < s.compacted:
		rest = w.await(func(resp *pb.WatchResponse) bool { return resp.Canceled })
	default:
		rest = w.sync(revision)
	}
	rest.responses = append(created.responses, rest.responses...)
	return rest
}

// create asks for a watcher and waits until it is said to be there, or not.
func (w *watchSide) create(r *pb.WatchCreateRequest) answer {
	if err := w.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}); err != nil {
		return failed(err)
	}
	a := w.await(func(resp *pb.WatchResponse) bool { return resp.Created })
	if a.code == "" {
		if resp := a.responses[0].(*pb.WatchResponse); !resp.Canceled {
			w.open[resp.WatchId] = true
		}
	}
	return a
}

// cancel ends a watcher. Nothing is ever said of one that is not there, so such a request is not made.
func (w *watchSide) cancel(r *pb.WatchCancelRequest) answer {
	if !w.open[r.WatchId] {
		return answer{}
	}
	delete(w.open, r.WatchId)
	if err := w.rpc.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: r}}); err != nil {
		return failed(err)
	}
	return w.await(func(resp *pb.WatchResponse) bool { return resp.Canceled && resp.WatchId == r.WatchId })
}

// await reads until the response that is waited for; what comes before it is kept.
func (w *watchSide) await(isIt func(*pb.WatchResponse) bool) answer {
	timeout := time.After(stepLimit)
	for {
		select {
		case resp, ok := <-w.got:
			if !ok {
				return answer{code: broken, text: "the watch stream has ended"}
			}
			if isIt(resp) {
				normalise(resp.ProtoReflect())
				return answer{responses: []proto.Message{resp}}
			}
			w.keep(resp)
		case <-timeout:
			return answer{code: broken, text: "no answer on the watch stream"}
		}
	}
}

// keep notes what a response tells of its watcher. How events are packed is not compared, so each stands alone.
func (w *watchSide) keep(resp *pb.WatchResponse) {
	for _, e := range resp.Events {
		w.events[resp.WatchId] = append(w.events[resp.WatchId], e)
	}
	if resp.Canceled || resp.Created {
		normalise(resp.ProtoReflect())
		w.events[resp.WatchId] = append(w.events[resp.WatchId], resp)
	}
}

// sync waits until the stream is up to date with the revision and returns all that came on it, watcher by watcher. The
// server is asked for progress until it says so: upstream does not answer while a watcher of the stream is behind.
func (w *watchSide) sync(revision int64) answer {
	if len(w.open) == 0 { // nobody to have progress, or events
		return w.take()
	}
	ask := &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
	for start := time.Now(); time.Since(start) < stepLimit; {
		if err := w.rpc.Send(ask); err != nil {
			return failed(err)
		}
		if w.upTo(revision, 30*time.Millisecond) {
			return w.take()
		}
	}
	return answer{code: broken, text: fmt.Sprint("no progress to revision ", revision)}
}

// upTo reads until a progress notice at the revision, or nothing for a while.
func (w *watchSide) upTo(revision int64, quiet time.Duration) bool {
	for {
		select {
		case resp, ok := <-w.got:
			if !ok {
				return false
			}
			if len(resp.Events) == 0 && !resp.Created && !resp.Canceled && resp.GetHeader().GetRevision() >= revision {
				return true
			}
			w.keep(resp)
		case <-time.After(quiet):
			return false
		}
	}
}

// take hands out what was kept, with a mark before each watcher's part.
func (w *watchSide) take() answer {
	var a answer
	for _, id := range slices.Sorted(maps.Keys(w.events)) {
		a.responses = append(a.responses, &pb.WatchResponse{WatchId: id, CancelReason: "what follows belongs to this watcher"})
		a.responses = append(a.responses, w.events[id]...)
	}
	w.events = map[int64][]proto.Message{}
	return a
}
