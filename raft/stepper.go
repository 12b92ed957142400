package raft

// Stepper drives a Node that has no goroutines: a simulation of a cluster runs
// many members in one goroutine and decides what happens when. All methods of
// the Node work, except that Compact would wait for ever: use the Stepper's.
type Stepper struct {
	n    *Node
	trim *trimWait
}

// OpenManual is Open without goroutines.
func OpenManual(cfg Config, openLog OpenLog, sm StateMachine) (*Node, *Stepper, error) {
	n, err := newNode(cfg, openLog, sm)
	if err != nil {
		return nil, nil, err
	}
	n.begin()
	return n, &Stepper{n: n}, nil
}

// Tick is one heartbeat interval.
func (s *Stepper) Tick() { s.n.tick() }

// Complete waits for the log once and lets the core know. The caller makes sure
// that a write is in flight.
func (s *Stepper) Complete() error {
	pos, err := s.n.log.Wait()
	if err != nil {
		s.n.logEnded(err)
		return err
	}
	s.n.mu.Lock()
	s.n.mu.c.logDurable(pos)
	s.n.exit(false)
	return s.finishTrim()
}

// Apply runs the state machine until nothing is left for it. It reports whether
// there was anything.
func (s *Stepper) Apply() bool {
	had := s.n.unapplied.Load() > 0
	s.n.applyCommitted()
	return had
}

// Compact is Node.Compact in two parts: the log is trimmed in the Complete that
// makes the base record durable.
func (s *Stepper) Compact(upTo Index) error {
	if s.trim != nil {
		return nil // one at a time
	}
	s.n.mu.Lock()
	t, err := s.n.mu.c.compact(uint64(upTo))
	s.n.exit(false)
	s.trim = t
	return err
}

func (s *Stepper) finishTrim() error {
	if s.trim == nil {
		return nil
	}
	select {
	case <-s.trim.done:
	default:
		return nil
	}
	t := s.trim
	s.trim = nil
	return s.n.trimLog(t)
}
