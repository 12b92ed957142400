package rpc

import (
	"sync"
	"time"
)

// leaderMonitor ends the streams that asked for a leader (metadata "hasleader")
// when there has been none for a while. Ending a stream costs a client far more
// than a refused request, hence the patience.
type leaderMonitor struct {
	status   func() RaftStatus
	election time.Duration

	mu struct {
		sync.Mutex
		streams map[*Stream]bool // value: requires a leader
	}
	stop, done chan struct{}
}

// leaderlessElections is how many election timeouts a stream survives without
// a leader.
const leaderlessElections = 3

func newLeaderMonitor(status func() RaftStatus, election time.Duration) *leaderMonitor {
	m := &leaderMonitor{
		status: status, election: election,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	m.mu.streams = make(map[*Stream]bool)
	return m
}

func (m *leaderMonitor) add(s *Stream, needsLeader bool) {
	m.mu.Lock()
	m.mu.streams[s] = needsLeader
	m.mu.Unlock()
}

func (m *leaderMonitor) remove(s *Stream) {
	m.mu.Lock()
	delete(m.mu.streams, s)
	m.mu.Unlock()
}

// run is the monitor's goroutine.
func (m *leaderMonitor) run() {
	defer close(m.done)
	t := time.NewTicker(m.election)
	defer t.Stop()
	missing := 0
	for {
		select {
		case <-m.stop:
			return
		case <-t.C:
			if m.status().Lead != 0 {
				missing = 0
				continue
			}
			if missing++; missing >= leaderlessElections {
				m.fail(errNoLeader, func(needsLeader bool) bool { return needsLeader })
			}
		}
	}
}

func (m *leaderMonitor) failAll(err error) {
	m.fail(err, func(bool) bool { return true })
}

func (m *leaderMonitor) fail(err error, which func(needsLeader bool) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for s, needsLeader := range m.mu.streams {
		if which(needsLeader) {
			s.Fail(err)
			delete(m.mu.streams, s)
		}
	}
}

func (m *leaderMonitor) close() {
	close(m.stop)
	<-m.done
}
