package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"
)

// pieces is a connection from which a fixed stream comes in pieces.
type pieces struct {
	net.Conn
	b []byte
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		return 0, io.EOF
	}
	k := copy(b[:min(len(b), p.n)], p.b)
	p.b = p.b[k:]
	return k, nil
}

func (p *pieces) Close() error { return nil }

// fakeSnapshots holds blobs by index and keeps what was staged.
type fakeSnapshots struct {
	mu       sync.Mutex
	blobs    map[uint64][][]byte
	released map[uint64]int
	staged   map[uint64][][]byte
	reads    int
	// manifests is the number of those that were given out.
	manifests int
	onRead    func(n int)
	fail      error
}

func newFakeSnapshots() *fakeSnapshots {
	return &fakeSnapshots{blobs: map[uint64][][]byte{}, released: map[uint64]int{}, staged: map[uint64][][]byte{}}
}

func (s *fakeSnapshots) hold(index uint64, sizes ...int) {
	rnd := rand.New(rand.NewPCG(index, 1))
	for _, n := range sizes {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		s.mu.Lock()
		s.blobs[index] = append(s.blobs[index], b)
		s.mu.Unlock()
	}
}

func (s *fakeSnapshots) setFault(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = err
}

func (s *fakeSnapshots) Offer(atLeast uint64) (index, term uint64, confState []byte, ok bool) {
	return 7, 3, nil, atLeast <= 7
}

func (s *fakeSnapshots) Manifest(index, _ uint64) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs[index] == nil {
		return nil, errors.New("no such snapshot")
	}
	s.manifests++
	var b []byte
	for _, blob := range s.blobs[index] {
		b = fmt.Appendf(b, "%d ", len(blob))
	}
	return b, nil
}

func (s *fakeSnapshots) ReadAt(index, _ uint64, blob uint32, p []byte, off int64) (int, error) {
	s.mu.Lock()
	s.reads++
	n, onRead, blobs := s.reads, s.onRead, s.blobs[index]
	s.mu.Unlock()
	if onRead != nil {
		onRead(n)
	}
	return bytes.NewReader(blobs[blob]).ReadAt(p, off)
}

func (s *fakeSnapshots) Release(index, _ uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released[index]++
}

func (s *fakeSnapshots) Stage(ctx context.Context, index, _ uint64, manifest []byte, fetch func(uint32, []byte, int64) (int, error)) error {
	s.mu.Lock()
	fault := s.fail
	s.mu.Unlock()
	if fault != nil {
		return fault
	}
	var blobs [][]byte
	for _, word := range bytes.Fields(manifest) {
		var n int
		if _, err := fmt.Sscan(string(word), &n); err != nil {
			return err
		}
		blobs = append(blobs, make([]byte, n))
	}
	for i, b := range blobs {
		for at := 0; at < len(b); {
			end := min(at+3<<20, len(b))
			n, err := fetch(uint32(i), b[at:end], int64(at))
			if err != nil {
				return err
			}
			at += n
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.staged[index] = blobs
	return ctx.Err()
}

func snapMsg(from, to, index uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgSnap.Enum(), From: &from, To: &to, Term: new(uint64(3)), Snapshot: &raftpb.Snapshot{
		Metadata: &raftpb.SnapshotMetadata{Index: &index, Term: new(uint64(2)), ConfState: &raftpb.ConfState{Voters: []uint64{1, 2}}},
	}}
}

// snapPair are two connected nodes with snapshots; b dials a through the proxy.
func snapPair(t *testing.T, change func(*Config)) (a, b *node, from, to *fakeSnapshots, p *proxy) {
	t.Helper()
	from, to = newFakeSnapshots(), newFakeSnapshots()
	a = startNode(t, 1, func(c *Config) {
		c.Snapshots = from
		if change != nil {
			change(c)
		}
	})
	b = startNode(t, 2, func(c *Config) { c.Snapshots = to })
	p = slowProxy(t, a.lis.Addr().String(), 0)
	a.SetMembers([]Member{{2, []string{b.url()}}})
	b.SetMembers([]Member{{1, []string{"http://" + p.addr()}}})
	a.connected(t, 2)
	b.connected(t, 1)
	return a, b, from, to, p
}

func (s *fakeSnapshots) check(t *testing.T, from *fakeSnapshots, index uint64) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.staged[index]) != len(from.blobs[index]) {
		t.Fatalf("%d blobs staged of %d", len(s.staged[index]), len(from.blobs[index]))
	}
	for i, b := range from.blobs[index] {
		if !bytes.Equal(b, s.staged[index][i]) {
			t.Fatalf("blob %d differs", i)
		}
	}
}

func TestSnapshotIsPulled(t *testing.T) {
	a, b, from, to, _ := snapPair(t, nil)
	from.hold(50, 10<<20, 0, 1, snapChunk, snapChunk+1)
	a.Send([]*raftpb.Message{snapMsg(1, 2, 50)})
	a.raft.await(t, "report", func() bool { return len(a.raft.snapshots[2]) == 1 })
	b.raft.await(t, "message", func() bool { return len(b.raft.msgs) == 1 })
	if m := b.raft.msgs[0]; m.GetType() != raftpb.MsgSnap || m.GetSnapshot().GetMetadata().GetIndex() != 50 {
		t.Errorf("raft was given %v", m)
	}
	if !a.raft.snapshots[2][0] || from.released[50] != 1 {
		t.Errorf("reported %v, released %d times", a.raft.snapshots[2], from.released[50])
	}
	to.check(t, from, 50)
	if s := a.Stats()[0].SnapshotsSent; s.Done != 1 || s.InFlight != 0 || s.Seconds.Count != 1 {
		t.Errorf("sent %+v", s)
	}
	if s := b.Stats()[0].SnapshotsTaken; s.Done != 1 || s.InFlight != 0 {
		t.Errorf("taken %+v", s)
	}
}

// TestSnapshotOverBrokenConnections: what was fetched stays, the rest goes on.
func TestSnapshotOverBrokenConnections(t *testing.T) {
	a, b, from, to, p := snapPair(t, nil)
	from.hold(50, 12<<20)
	from.onRead = func(n int) {
		if n == 3 || n == 9 || n == 20 {
			p.cut()
		}
	}
	a.Send([]*raftpb.Message{snapMsg(1, 2, 50)})
	b.raft.await(t, "message", func() bool { return len(b.raft.msgs) == 1 })
	a.raft.await(t, "report", func() bool { return len(a.raft.snapshots[2]) == 1 })
	if !a.raft.snapshots[2][0] {
		t.Error("reported as failed")
	}
	to.check(t, from, 50)
	if from.reads > 24+3*snapAhead {
		t.Errorf("%d reads for 24 chunks", from.reads)
	}
}

// TestSnapshotFailures: every MsgSnap ends in one report and one release.
func TestSnapshotFailures(t *testing.T) {
	a, b, from, to, _ := snapPair(t, nil)
	wait := func(n int, ok bool) {
		t.Helper()
		a.raft.await(t, fmt.Sprint("report ", n), func() bool { return len(a.raft.snapshots[2]) == n })
		if a.raft.snapshots[2][n-1] != ok {
			t.Errorf("report %d is %v", n, !ok)
		}
	}
	a.Send([]*raftpb.Message{snapMsg(1, 2, 49)}) // is not held
	wait(1, false)
	to.setFault(errors.New("full disk"))
	from.hold(50, 100)
	a.Send([]*raftpb.Message{snapMsg(1, 2, 50)})
	wait(2, false)
	to.setFault(nil)
	a.Send([]*raftpb.Message{snapMsg(1, 2, 50)})
	wait(3, true)
	if b.raft.count() != 1 {
		t.Errorf("raft was given %d messages", b.raft.count())
	}
	a.Send([]*raftpb.Message{snapMsg(1, 9, 50)}) // nobody
	a.raft.await(t, "report of nobody", func() bool { return len(a.raft.snapshots[9]) == 1 })
	_ = b.lis.Close()
	b.Close()
	a.raft.await(t, "loss", func() bool { return a.ActiveSince(2).IsZero() })
	a.Send([]*raftpb.Message{snapMsg(1, 2, 50)}) // not connected
	wait(4, false)
	from.mu.Lock()
	defer from.mu.Unlock()
	if from.released[49] != 0 || from.released[50] != from.manifests {
		t.Errorf("released %v of %d", from.released, from.manifests)
	}
}

// TestNewerSnapshotWins: a peer that is told of a newer snapshot leaves the old.
func TestNewerSnapshotWins(t *testing.T) {
	a, b, from, to, _ := snapPair(t, nil)
	block := make(chan struct{})
	from.hold(50, 4<<20)
	from.hold(60, 1<<20)
	from.onRead = func(n int) {
		if n <= 6 { // what Stage asks for at once
			<-block
		}
	}
	a.Send([]*raftpb.Message{snapMsg(1, 2, 50)})
	for from.count() < 6 {
		time.Sleep(time.Millisecond)
	}
	a.Send([]*raftpb.Message{snapMsg(1, 2, 60)})
	a.raft.await(t, "report", func() bool { return len(a.raft.snapshots[2]) >= 1 })
	close(block)
	b.raft.await(t, "message", func() bool { return len(b.raft.msgs) == 1 })
	if got := b.raft.msgs[0].GetSnapshot().GetMetadata().GetIndex(); got != 60 {
		t.Errorf("raft was given %d", got)
	}
	to.check(t, from, 60)
}

func (s *fakeSnapshots) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

func TestSnapshotRateLimit(t *testing.T) {
	a, b, from, _, _ := snapPair(t, func(c *Config) { c.SnapshotBytesPerSecond = 4 << 20 })
	from.hold(50, 6<<20)
	start := time.Now()
	a.Send([]*raftpb.Message{snapMsg(1, 2, 50)})
	b.raft.await(t, "message", func() bool { return len(b.raft.msgs) == 1 })
	if took := time.Since(start); took < time.Second {
		t.Errorf("6 MiB at 4 MiB/s took %v", took)
	}
}
