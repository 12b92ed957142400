package raft

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"quire/disk"
	"quire/wal"
)

// instantLog is durable at once and remembers nothing.
type instantLog struct {
	pos, told Pos
	mu        sync.Mutex
	cond      *sync.Cond
	writes    int
	closed    bool
}

func (l *instantLog) AppendParts(parts ...[]byte) (Pos, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pos++
	return l.pos, nil
}

func (l *instantLog) Submit(ops int, force bool) error { l.writes++; l.cond.Signal(); return nil }

func (l *instantLog) Wait() (Pos, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.pos == l.told && !l.closed {
		l.cond.Wait()
	}
	if l.closed {
		return 0, errFakeClosed
	}
	l.told = l.pos
	return l.pos, nil
}

func (l *instantLog) TrimBefore(Pos) error { return nil }

func (l *instantLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.cond.Broadcast()
	return nil
}

func openInstant(func(Pos, []byte) error) (Log, Found, error) {
	l := &instantLog{}
	l.cond = sync.NewCond(&l.mu)
	return l, Found{}, nil
}

// nullMachine answers waiters and does nothing else.
type nullMachine struct {
	ops  int
	wait []Waiter
}

type benchWaiter struct{ c chan error }

func (w *benchWaiter) Dropped(err error) { w.c <- err }

func (m *nullMachine) Apply(index, term uint64, data []byte, ws []interface{ Dropped(error) }) {
	for len(data) > 0 {
		_, rest, err := NextOp(data)
		if err != nil {
			panic(err)
		}
		data = rest
		m.ops++
	}
	for _, w := range ws {
		if w != nil {
			m.wait = append(m.wait, w)
		}
	}
}

func (m *nullMachine) ApplyConfChange(index, term uint64, cc []byte, w interface{ Dropped(error) }) []byte {
	return nil
}

func (m *nullMachine) Flush() {
	for _, w := range m.wait {
		w.Dropped(nil)
	}
	m.wait = m.wait[:0]
}

func (m *nullMachine) LeaderChanged(lead, term uint64, isLeader bool) {}

// BenchmarkStep is the whole way of a batch in one goroutine: enqueue, entry,
// record, commit, apply.
func BenchmarkStep(b *testing.B) {
	for _, batch := range []int{1, 16, 128} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			sm := &nullMachine{}
			n, st, err := OpenManual(singleConfig(), openInstant, sm)
			if err != nil {
				b.Fatal(err)
			}
			settleManual(b, n, st)
			op := make([]byte, 320)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += batch {
				for range batch {
					if err := n.Enqueue(nil, op, nil); err != nil {
						b.Fatal(err)
					}
				}
				n.Kick()
				if err := st.Complete(); err != nil {
					b.Fatal(err)
				}
				st.Apply()
			}
			b.StopTimer()
			if sm.ops < b.N {
				b.Fatalf("%d operations applied, want %d", sm.ops, b.N)
			}
		})
	}
}

func settleManual(tb testing.TB, n *Node, st *Stepper) {
	tb.Helper()
	for !n.Status().IsLeader || n.Status().Applied < n.Status().LastIndex {
		if err := st.Complete(); err != nil {
			tb.Fatal(err)
		}
		st.Apply()
	}
}

// BenchmarkNode is the same with goroutines: proposers that each wait for
// their operation, as blocking clients do, or in bursts of 10.
func BenchmarkNode(b *testing.B) {
	for _, burst := range []int{1, 10} {
		for _, proposers := range []int{1, 10, 100} {
			b.Run(fmt.Sprintf("proposers=%d/burst=%d", proposers, burst), func(b *testing.B) {
				benchNode(b, openInstant, proposers, burst)
			})
		}
	}
}

func benchNode(b *testing.B, open OpenLog, proposers, burst int) {
	sm := &nullMachine{}
	n, err := Open(singleConfig(), open, sm)
	if err != nil {
		b.Fatal(err)
	}
	defer n.Stop(context.Background())
	w := &benchWaiter{c: make(chan error, 1)}
	if err := n.Propose([]byte("first"), w); err != nil {
		b.Fatal(err)
	}
	<-w.c
	first := n.Status().LastIndex
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for p := range proposers {
		rounds := b.N / proposers / burst
		if p == 0 {
			rounds = (b.N-(proposers-1)*rounds*burst)/burst + 1
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			w := &benchWaiter{c: make(chan error, burst)}
			op := make([]byte, 320)
			for range rounds {
				for range burst {
					if err := n.Enqueue(w, op, nil); err != nil {
						panic(err)
					}
				}
				n.Kick()
				for range burst {
					if err := <-w.c; err != nil {
						panic(err)
					}
				}
			}
		}()
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/float64(n.Status().LastIndex-first), "ops/entry")
}

// BenchmarkEnqueue is the part that runs once per operation.
func BenchmarkEnqueue(b *testing.B) {
	n, st, err := OpenManual(singleConfig(), openInstant, &nullMachine{})
	if err != nil {
		b.Fatal(err)
	}
	settleManual(b, n, st)
	op := make([]byte, 320)
	b.ReportAllocs()
	for i := 0; i < b.N; i++ {
		if err := n.Enqueue(nil, op, nil); err != nil {
			b.Fatal(err)
		}
		if i%1024 == 1023 {
			b.StopTimer()
			n.Kick()
			st.Complete()
			st.Apply()
			b.StartTimer()
		}
	}
}

// BenchmarkDurable is BenchmarkNode on the real log and the real disk.
func BenchmarkDurable(b *testing.B) {
	for _, engine := range []disk.Options{{}, {NoUring: true}} {
		d, err := disk.OpenDir(b.TempDir(), engine)
		if err != nil {
			b.Fatal(err)
		}
		name := d.Engine()
		d.Close()
		if name == disk.EnginePwrite && !engine.NoUring {
			continue // without io_uring in this build the two are the same
		}
		for _, burst := range []int{1, 10} {
			for _, proposers := range []int{1, 10, 100} {
				b.Run(fmt.Sprintf("%s/proposers=%d/burst=%d", name, proposers, burst), func(b *testing.B) {
					benchDurable(b, engine, proposers, burst)
				})
			}
		}
	}
}

func benchDurable(b *testing.B, engine disk.Options, proposers, burst int) {
	d, err := disk.OpenDir(b.TempDir(), engine)
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	var l *wal.Log
	benchNode(b, func(replay func(Pos, []byte) error) (Log, Found, error) {
		var err error
		l, _, err = wal.Open(d, wal.Options{}, replay)
		for err == nil && l.Stats().AheadBytes < 65<<20 {
			err = l.Maintain() // the first fill is not what is measured
		}
		return l, Found{}, err
	}, proposers, burst)
	s := l.Stats()
	b.ReportMetric(float64(b.N)/float64(s.Batches), "ops/write")
}
