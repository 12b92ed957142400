package simulation

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"quire/cmd/quire/corruption"
	"quire/disk"
	"quire/engine"
	"quire/pagestore"
	"quire/raft"
	"quire/wal"
	"quire/watchfanout"

	pb "quire/api/etcdserverpb"
)

// machine is a place for members, one after the other.
type machine struct {
	w     *world
	place int
	clock int64 // ahead of the world's time, in nanoseconds
	disk  *disk.Mem
	id    uint64 // of the member whose data is on the disk; 0: nobody's
	// founders begin a new cluster; nil: the member joins one.
	founders []*pb.Member
	m        *member // nil: down

	startAt, pausedTo, stalledTo int64
	powerAt                      int // operation of the disk at which the power goes; 0: never
	faulted                      int // operations of the disk that failed before this run
	// damaged: a bit of the store has flipped. lost: the member does not start with
	// that and has to be replaced.
	damaged, lost bool
	// logDamaged: the bit was one of the log. If it was in the last batch the member
	// goes on, and is no longer damaged when the others have made that good.
	logDamaged bool
	// divergent: its store was changed behind the log's back.
	divergent bool
}

// harmed tells whether there is a reason for errors.
func (n *machine) harmed() bool {
	return n.damaged || n.powerAt > 0 || n.disk.Faulted() > n.faulted
}

// member is one run of a process.
type member struct {
	n      *machine
	run    uint64
	engine *engine.Engine
	raft   *raft.Node
	step   *raft.Stepper
	log    *wal.Log
	hub    *watchfanout.Hub
	check  *corruption.Continuous
	events []watchfanout.Event
	dead   error // why it has to end
	left   bool  // it was removed
	nonce  uint64
	seen   int64 // highest revision that a serializable read has shown

	staging, newer uint64 // snapshot that is being staged; the newest of which it was told
}

func newMachine(w *world, place int) *machine {
	return &machine{w: w, place: place, clock: int64(w.rng.IntN(1 << 40)), disk: disk.NewMem(w.rng.Uint64())}
}

// found makes the first machines a cluster.
func (w *world) found() {
	var ms []*pb.Member
	for i := range w.p.voters {
		ms = append(ms, newPeer(uint64(i+1)))
	}
	w.ref.found(ms)
	for i, m := range ms {
		n := w.machines[i]
		n.id, n.founders = m.ID, ms
		n.startAt = int64(w.rng.IntN(100))
	}
}

func newPeer(id uint64) *pb.Member {
	return &pb.Member{ID: id, PeerURLs: []string{fmt.Sprintf("http://m%d", id)}}
}

func (n *machine) paused() bool { return n.w.now < n.pausedTo }

func (m *member) gone() bool { return m.n.m != m }

// turn is the machine's share of a step.
func (n *machine) turn() {
	w := n.w
	if n.m == nil {
		if n.id != 0 && !n.lost && w.now >= n.startAt {
			n.start()
		}
		return
	}
	if n.paused() {
		return
	}
	m := n.m
	if (w.now+int64(n.place)*3)%tickSteps == 0 {
		m.step.Tick()
	}
	r := w.rng.Uint32()
	if m.log.InFlight() > 0 && w.now >= n.stalledTo && r&1 == 0 {
		m.note(m.step.Complete())
	}
	if r&2 == 0 {
		m.step.Apply()
		m.raft.Kick()
	}
	if r>>8&7 == 0 {
		m.note(m.engine.RunPending())
		m.note(m.log.Maintain())
	}
	if r>>11&3 == 0 {
		m.hub.RunPending()
	}
	if n.logDamaged && !m.raft.Status().IsDoubtful {
		n.damaged, n.logDamaged = false, false
	}
	if (w.now+int64(n.place)*5)%roundSteps == 0 {
		m.compare()
	}
	n.look()
}

// note remembers an error of a step, after which the process ends, but for a full
// disk.
func (m *member) note(err error) {
	if err != nil && !errors.Is(err, pagestore.ErrNoSpace) {
		m.end(err)
	}
}

// end remembers the first error after which the process ends.
func (m *member) end(err error) {
	if m.dead == nil {
		m.dead = err
	}
}

// look ends a member that cannot go on, and a machine whose power has gone.
func (n *machine) look() {
	m := n.m
	if m == nil {
		return
	}
	if err := m.raft.Err(); err != nil {
		m.note(err)
	}
	switch {
	case n.powerAt > 0 && n.disk.Ops() >= n.powerAt:
		n.crash("power cut", false)
	case m.left:
		n.crash("removed", true)
		n.wipe()
	case m.dead != nil:
		if !n.harmed() {
			n.w.fail("member %d ends although nothing is wrong with its disk: %v", n.id, m.dead)
		}
		n.crash("disk error", n.w.percent(50))
	}
}

// crash ends the run: of the process alone, or with the machine's memory.
func (n *machine) crash(why string, process bool) {
	w := n.w
	c := disk.CrashChoice{Seed: w.rng.Uint64(), Process: process, Strict: w.percent(50), Fate: pick(w.rng, disk.AnyFate, disk.AnyFate, disk.DropAll, disk.KeepAll, disk.TearAll)}
	n.disk = n.disk.Crash(c)
	n.m, n.powerAt = nil, 0
	if w.faulty && w.percent(8) && n.mayBeDamaged() {
		if w.percent(50) || !w.replaceable() {
			n.damageLog()
		} else {
			n.damage()
		}
	}
	n.startAt = w.now + int64(1+w.rng.IntN(100))
	if w.percent(20) {
		n.startAt += int64(w.rng.IntN(600))
	}
	w.stats.Crashes++
	w.note("member %d: %s", n.id, why)
}

// wipe takes the member's data away.
func (n *machine) wipe() {
	if n.m != nil {
		n.crash("wiped", true)
	}
	n.w.note("machine %d is wiped of member %d", n.place, n.id)
	n.disk, n.id, n.founders = disk.NewMem(n.w.rng.Uint64()), 0, nil
	n.damaged, n.logDamaged, n.lost, n.divergent = false, false, false, false
}

// replaceable: the others can do without it.
func (w *world) replaceable() bool { return w.p.spares > 0 && w.p.voters >= 3 }

// mayBeDamaged: there are others that can help, and only one at a time is. Two voters
// help each other only while there is no change of the voters, see raft/doc.go.
func (n *machine) mayBeDamaged() bool {
	if n.w.p.voters < 2 || n.w.p.voters == 2 && n.w.p.spares > 0 {
		return false
	}
	for _, o := range n.w.machines {
		if o.damaged {
			return false
		}
	}
	return true
}

// damageLog flips a bit in the log's newest batch at rest, which the log's own
// checks of what was durable do not cover, or in another one.
func (n *machine) damageLog() {
	rec, err := wal.Check(n.disk)
	if err != nil || rec.EndFile == "" {
		return
	}
	off, size := rec.EndOff, rec.EndBytes
	switch k := n.w.rng.IntN(10); {
	case k < 7: // a block is mostly padding
		size = 512
	case k == 9:
		off, size = 4096, rec.EndOff+rec.EndBytes-4096
	}
	bit := off*8 + n.w.rng.Int64N(size*8)
	n.disk.FlipBit(rec.EndFile, bit)
	if l, _, err := wal.Open(n.disk.Clone(1), n.w.logOptions(n.id, true, true), nil); err == nil {
		n.w.check(l.Close(), "close")
	} else if !n.w.replaceable() {
		n.disk.FlipBit(rec.EndFile, bit) // that would be the end of the member
		return
	}
	n.damaged, n.logDamaged = true, true
	n.w.stats.Damaged++
	n.w.note("machine %d: bit %d of %s flips", n.place, bit, rec.EndFile)
}

// damage flips a bit of the store at rest.
func (n *machine) damage() {
	type file struct {
		name string
		bits int64
	}
	var files []file
	for i := range 40 {
		dir := "store"
		if i > 0 {
			dir = fmt.Sprintf("store/%08x", i)
		}
		infos, err := n.disk.List(dir)
		n.w.check(err, "list")
		for _, f := range infos {
			if f.SizeBytes > 0 {
				files = append(files, file{dir + "/" + f.Name, f.SizeBytes * 8})
			}
		}
	}
	if len(files) == 0 {
		return
	}
	f := files[n.w.rng.IntN(len(files))]
	bit := n.w.rng.Int64N(f.bits)
	n.disk.FlipBit(f.name, bit)
	n.damaged = true
	n.w.stats.Damaged++
	n.w.note("machine %d: bit %d of %s flips", n.place, bit, f.name)
}

// now is the machine's monotonic clock.
func (n *machine) now() int64 { return n.w.now*stepNanos + n.clock }

// start begins a run on what the disk holds.
func (n *machine) start() {
	w := n.w
	w.runs++
	m := &member{n: n, run: w.runs, nonce: w.rng.Uint64()}
	n.faulted = n.disk.Faulted()
	if w.faulty && w.percent(5) {
		n.cutPowerSoon()
	}
	err := m.open()
	if m.dead != nil && err == nil {
		err = m.dead
	}
	w.note("member %d starts, run %d", n.id, m.run)
	if err == nil && m.raft.Status().IsDoubtful {
		w.stats.Doubts++
		w.note("member %d is in doubt", n.id)
	}
	n.m = m
	switch {
	case err == nil:
		n.look()
	case n.powerAt > 0 && n.disk.Ops() >= n.powerAt:
		n.crash("power cut at the start", false)
	case n.disk.Faulted() > n.faulted:
		n.crash("disk error at the start", w.percent(50))
	case errors.Is(err, errNotYet):
		n.m, n.startAt = nil, w.now+int64(10+w.rng.IntN(50))
		w.note("member %d: %s", n.id, err.Error())
	case n.damaged:
		n.m, n.lost = nil, true
		w.stats.Lost++
		w.note("member %d is lost: %s", n.id, err.Error())
	default:
		w.fail("member %d does not start: %v", n.id, err)
	}
}

// cutPowerSoon lets the power go at one of the next operations of the disk.
func (n *machine) cutPowerSoon() {
	n.powerAt = n.disk.Ops() + 1 + n.w.rng.IntN(120)
	n.disk.StopAfter(n.powerAt)
}

// fail makes operations of the disk fail, one or for a while.
func (n *machine) diskFault() {
	w := n.w
	f := disk.Fault{Kind: pick(w.rng, disk.OpWrite, disk.OpSync, disk.OpSyncDir, disk.OpLink, disk.OpRename, disk.OpUnlink, disk.OpSubmit, disk.OpComplete, disk.OpTruncate, disk.OpRead),
		Nth: 1 + w.rng.IntN(20), Err: unix.EIO}
	if w.percent(40) { // the store's disk is full
		f = disk.Fault{Kind: disk.OpWrite, Prefix: "store/", Nth: 1, Forever: true, Err: unix.ENOSPC}
	}
	n.disk.InjectErr(f)
	w.note("machine %d: faults of %s", n.place, f.Kind.String())
}

func (m *member) open() (err error) {
	n, w := m.n, m.n.w
	replaced, err := m.openStore()
	if err != nil {
		return err
	}
	e := m.engine
	if e.AppliedIndex() == 0 {
		// As a server does: the identity is recorded before anything else happens.
		if err := e.Checkpoint(); err != nil {
			return err
		}
	}
	m.hub = watchfanout.NewHub(history{e}, watchfanout.Options{Inline: true, StreamPendingBytes: 2 << 10, TotalPendingBytes: 12 << 10, ChunkBytes: 1 << 10})
	mode := raft.RefuseNewLog
	if e.AppliedIndex() == 0 {
		mode = raft.JoinNewLog
		if n.founders != nil {
			mode = raft.BootstrapNewLog
		}
	}
	openLog := func(replay func(wal.Pos, []byte) error) (raft.Log, raft.Found, error) {
		l, rec, err := wal.Open(n.disk, w.logOptions(n.id, mode == raft.RefuseNewLog, len(e.Members()) != 1), replay)
		if err != nil {
			return nil, raft.Found{}, err
		}
		m.log = l
		return l, raft.Found{Doubtful: rec.Doubtful, After: rec.DoubtPos}, nil
	}
	m.raft, m.step, err = raft.OpenManual(raft.Config{
		ID: n.id, ClusterID: clusterID, NewLog: mode, Session: m.run, Replaced: replaced,
		HeartbeatMillis: int(tickSteps * stepNanos / int64(time.Millisecond)), ElectionMillis: int(electionTicks * tickSteps * stepNanos / int64(time.Millisecond)),
		Applied: raft.Index(e.AppliedIndex()), AppliedTerm: raft.Term(e.Term()), ConfState: e.ConfState(),
		CatchupEntries: w.p.catchup, MaxBatchOps: 4, MaxPendingOps: 64, QueueDepth: w.p.queueDepth, MarkEntries: w.p.markEntries,
		Transport: wire{m},
	}, openLog, (*stateMachine)(m))
	m.check = corruption.NewContinuous(m.compareConfig())
	if err == nil && replaced {
		err = m.rebuilt()
	}
	return err
}

func (w *world) logOptions(id uint64, mustExist, cutDamaged bool) wal.Options {
	return wal.Options{SegmentBytes: w.p.logSegmentBytes, MaxBatchBytes: 8 << 10, QueueDepth: w.p.queueDepth,
		Manual: true, LogID: id, MustExist: mustExist, CutDamaged: cutDamaged}
}

func (m *member) engineOptions() engine.Options {
	n, w := m.n, m.n.w
	return engine.Options{
		ClusterID: clusterID, MemberID: n.id, Members: n.founders, QuotaBytes: -1, MinLeaseTTL: 1,
		CheckpointBytes: 1 << 40, CheckpointEntries: w.p.checkpointEntries, CheckpointMinInterval: 1,
		CompactionBatch: 3, Workers: 1,
		Pages: pagestore.Options{SegmentBytes: w.p.segmentBytes, PageBytes: 4 << 10, CacheBytes: 32 << 10, DirtyBytes: 64 << 10, NoSpaceBytes: 16 << 10, Inline: true,
			Nonce: func() uint64 { m.nonce += 0x9e3779b97f4a7c15; return m.nonce }},
		Publisher: (*publisher)(m), Propose: m.propose, OnCheckpoint: m.checkpointed, OnFatal: m.end, OnDamage: m.damaged, Now: n.now,
		Awaited: func(index, term uint64) bool { return m.raft.Awaits(raft.Index(index), raft.Term(term)) },
	}
}

// propose is how the engine reaches consensus.
func (m *member) propose(op []byte, w engine.Waiter) error {
	if m.raft == nil {
		return raft.ErrStopped
	}
	return m.raft.Propose(op, w)
}

// checkpointed compares the state with that of others who made a checkpoint of
// the same index, and gives the log up.
func (m *member) checkpointed(index uint64) {
	w := m.n.w
	if index == 0 || m.n.divergent {
		return // only the identity; or compared otherwise
	}
	sum := w.fingerprint(m)
	if sum == 0 {
		return
	}
	if was, ok := w.cuts[index]; ok && was != sum {
		w.fail("member %d has another state at index %d than another member had there", m.n.id, index)
	}
	w.cuts[index] = sum
	if m.step != nil && raft.Index(index) <= m.raft.Status().Applied {
		m.note(m.step.Compact(raft.Index(index)))
	}
}

// fingerprint is a member's state in a number. A disk that cannot be read gives
// 0, and will end the member.
func (w *world) fingerprint(m *member) uint64 {
	sum, err := m.engine.Fingerprint()
	if err != nil {
		if !m.n.harmed() {
			w.fail("member %d cannot read its state: %v", m.n.id, err)
		}
		m.note(err)
		return 0
	}
	return sum
}
