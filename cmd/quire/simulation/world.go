package simulation

import (
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	stepNanos = int64(10 * time.Millisecond)
	// tickSteps is a heartbeat interval, electionTicks of which are an election
	// timeout.
	tickSteps     = 10
	electionTicks = 10
	clusterID     = 7
)

// Options of a run.
type Options struct {
	Seed  uint64
	Steps int // with faults
	// Trace is told what happens; nil: nobody.
	Trace func(line string)
}

// Stats tell what a run has been through.
type Stats struct {
	Seeds    int
	Hash     uint64 // of the trace
	Steps    int64
	Entries  uint64
	Acked    int // writes
	Unknown  int // writes of which the client does not know
	Reads    int // linearizable ones
	Events   int // that watchers got
	Crashes  int
	Restores int // snapshots taken over
	Members  int // changes of the membership
	Terms    int
	Renewals int
	Expired  int // leases
	Damaged  int // machines of whose store or log a bit has flipped
	Rebuilt  int // stores
	Lost     int // members that had to be replaced
	Doubts   int // members that started without the end of their log
	Compared int // rounds in which members were compared
	Named    int // members that were made divergent, and found
}

// Violation is what a run ends with if something that must hold does not.
type Violation struct {
	Seed uint64
	Step int64
	What string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d, step %d: %s", v.Seed, v.Step, v.What)
}

// world is one run. It belongs to one goroutine.
type world struct {
	o      Options
	rng    *rand.Rand
	p      profile
	now    int64 // in steps
	depth  int   // of steps inside a transfer
	faulty bool

	machines []*machine
	net      network
	ref      *reference
	clients  []*client
	watchers []*watcher
	operator operator
	nextID   uint64
	runs     uint64
	leaders  map[uint64]uint64 // by term
	cuts     map[uint64]uint64 // fingerprint by index, of checkpoints
	floor    int64             // highest rank that was acknowledged
	diverged bool              // a member was made to differ
	stats    Stats
}

// profile is what kind of world a seed makes.
type profile struct {
	voters, spares    int
	loss, twice, late int // percent of messages
	lateSteps         int
	faultsPerMille    int // of steps
	catchup           int
	checkpointEntries uint64
	segmentBytes      int64
	logSegmentBytes   int64
	queueDepth        int
	markEntries       int
	clients, watchers int
	keys              int
}

func pick[T any](rng *rand.Rand, of ...T) T { return of[rng.IntN(len(of))] }

func newProfile(rng *rand.Rand) profile {
	return profile{
		voters: pick(rng, 1, 2, 3, 3, 3, 3, 5), spares: rng.IntN(3),
		loss: pick(rng, 0, 2, 10, 33), twice: pick(rng, 0, 5, 20), late: pick(rng, 0, 5, 20), lateSteps: pick(rng, 5, 50, 300),
		faultsPerMille: pick(rng, 2, 8, 8, 25),
		catchup:        pick(rng, 1, 3, 10, 40),
		// Each checkpoint is some ten syncs.
		checkpointEntries: pick[uint64](rng, 5, 20, 60),
		segmentBytes:      pick[int64](rng, 16<<10, 32<<10, 128<<10),
		logSegmentBytes:   pick[int64](rng, 16<<10, 64<<10),
		queueDepth:        1 + rng.IntN(3),
		markEntries:       pick(rng, 1, 5, 30),
		clients:           2 + rng.IntN(5), watchers: 1 + rng.IntN(4),
		keys: pick(rng, 3, 12),
	}
}

// Run simulates one seed. The error is a *Violation. The caller has made the
// process's random source deterministic: raft draws election timeouts from it.
func Run(o Options) (stats Stats, err error) {
	w := &world{o: o, rng: rand.New(rand.NewPCG(o.Seed, 0x71756972)), leaders: map[uint64]uint64{}, cuts: map[uint64]uint64{}}
	defer func() {
		switch v := recover().(type) {
		case nil:
		case *Violation:
			stats, err = w.stats, v
		default:
			panic(fmt.Sprintf("seed %d, step %d: %v", o.Seed, w.now, v))
		}
	}()
	w.begin()
	w.faulty = true
	for range o.Steps {
		w.step()
	}
	w.faulty = false
	w.recover()
	w.diverge()
	w.stats.Seeds = 1
	w.stats.Steps, w.stats.Terms, w.stats.Entries = w.now, len(w.leaders), w.ref.engine.AppliedIndex()
	return w.stats, nil
}

func (w *world) begin() {
	w.p = newProfile(w.rng)
	w.note("a world of %+v", w.p)
	w.ref = newReference(w)
	for i := range w.p.voters + w.p.spares {
		w.machines = append(w.machines, newMachine(w, i))
	}
	w.nextID = uint64(w.p.voters)
	w.found()
	for i := range w.p.clients {
		w.clients = append(w.clients, &client{w: w, id: i + 1, wait: int64(50 + w.rng.IntN(patience-50))})
	}
	for i := range w.p.watchers {
		w.watchers = append(w.watchers, &watcher{w: w, id: i + 1})
	}
}

// step is one step of the world.
func (w *world) step() {
	w.now++
	for _, n := range w.machines {
		n.turn()
	}
	w.deliver()
	for _, c := range w.clients {
		c.turn()
	}
	for _, x := range w.watchers {
		x.turn()
	}
	w.operator.turn(w)
	if w.faulty && w.rng.IntN(1000) < w.p.faultsPerMille {
		w.fault()
	}
}

// until steps until done, at most so many times.
func (w *world) until(steps int, done func() bool) bool {
	for range steps {
		if done() {
			return true
		}
		w.step()
	}
	return done()
}

// fail ends the run.
func (w *world) fail(format string, args ...any) {
	panic(&Violation{w.o.Seed, w.now, fmt.Sprintf(format, args...)})
}

// check fails on an error that cannot be explained.
func (w *world) check(err error, what string, args ...any) {
	if err != nil {
		w.fail("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// note adds a line to the trace.
func (w *world) note(format string, args ...any) {
	w.mix(uint64(w.now), uint64(len(format)))
	for _, a := range args {
		switch v := a.(type) {
		case uint64:
			w.mix(v)
		case int:
			w.mix(uint64(v))
		case int64:
			w.mix(uint64(v))
		case string:
			for i := range len(v) {
				w.mix(uint64(v[i]))
			}
		}
	}
	if w.o.Trace != nil {
		w.o.Trace(fmt.Sprintf("%6d "+format, append([]any{w.now}, args...)...))
	}
}

// mix hashes numbers into the trace's hash, as FNV-1a does bytes.
func (w *world) mix(vs ...uint64) {
	for _, v := range vs {
		w.stats.Hash = (w.stats.Hash ^ v) * 0x100000001b3
		w.stats.Hash ^= w.stats.Hash >> 29
	}
}

// percent is true so often.
func (w *world) percent(n int) bool { return w.rng.IntN(100) < n }

// up returns a member that is running, at random; nil if there is none.
func (w *world) up() *member {
	var ms []*member
	for _, n := range w.machines {
		if n.m != nil && !n.paused() {
			ms = append(ms, n.m)
		}
	}
	if len(ms) == 0 {
		return nil
	}
	return ms[w.rng.IntN(len(ms))]
}

// byID returns the running member of an ID, or nil.
func (w *world) byID(id uint64) *member {
	for _, n := range w.machines {
		if n.m != nil && n.id == id {
			return n.m
		}
	}
	return nil
}

func (s *Stats) add(o Stats) {
	s.Seeds += o.Seeds
	s.Hash ^= o.Hash
	s.Steps += o.Steps
	s.Entries += o.Entries
	s.Acked += o.Acked
	s.Unknown += o.Unknown
	s.Reads += o.Reads
	s.Events += o.Events
	s.Crashes += o.Crashes
	s.Restores += o.Restores
	s.Members += o.Members
	s.Terms += o.Terms
	s.Renewals += o.Renewals
	s.Expired += o.Expired
	s.Damaged += o.Damaged
	s.Doubts += o.Doubts
	s.Compared += o.Compared
	s.Named += o.Named
	s.Rebuilt += o.Rebuilt
	s.Lost += o.Lost
}
