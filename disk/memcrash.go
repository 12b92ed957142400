package disk

import (
	"io/fs"
	"math/rand/v2"
	"slices"
)

// CrashChoice says what a power cut leaves of the changes that were not durable.
type CrashChoice struct {
	Seed uint64
	// Fate is the fate of unsynced writes.
	Fate Fate
	// Strict: names that no directory sync followed, and sizes, are kept or
	// lost one by one in any combination. Otherwise as on ext4: changes of
	// names survive in order, a synced file has its name, and a file grows
	// only as far as its data arrived.
	Strict bool
	// Process: only the process dies, the machine goes on, and another one
	// opens the directory. Everything written stays visible, and what was not
	// synced is still not durable; of the queue's writes in flight each is
	// there or not. Names are durable, since OpenDir syncs directories. Fate
	// and Strict do not count.
	Process bool
}

// Fate is the fate of the writes that were not durable at a power cut.
type Fate uint8

const (
	// AnyFate decides for each write by itself: kept, dropped or torn.
	AnyFate Fate = iota
	// DropAll loses every one.
	DropAll
	// KeepAll keeps every one.
	KeepAll
	// TearAll tears every one.
	TearAll
)

// Crash returns the disk as a power cut at this moment may leave it. m itself
// stays as it is and can be crashed again with another choice.
func (m *Mem) Crash(c CrashChoice) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	rng := rand.New(rand.NewPCG(c.Seed, 0x6372617368))
	out := NewMem(c.Seed)
	if c.Process {
		out.adopt(m.names, func(in *memInode) *memInode { return in.orphan(rng) })
		return out
	}
	names := make(map[string]*memInode, len(m.dur)+1)
	for name, in := range m.dur {
		names[name] = in
	}
	inOrder := true
	for _, op := range m.pend {
		keep := c.Fate == KeepAll || c.Fate != DropAll && rng.IntN(2) == 0
		if !c.Strict {
			inOrder = inOrder && keep
			keep = op.journaled || inOrder
		}
		// A change of a name that was lost has nothing to act on.
		if keep && (op.kind == OpLink || names[op.from] == op.inode) {
			op.apply(names)
		}
	}
	out.adopt(names, func(in *memInode) *memInode { return in.crash(rng, c) })
	return out
}

// adopt enters what copy makes of each file, in the order of names, because the
// random choices depend on it. A file of two names stays one.
func (m *Mem) adopt(names map[string]*memInode, copy func(*memInode) *memInode) {
	made := map[*memInode]*memInode{}
	for _, name := range sortedNames(names) {
		in := names[name]
		if made[in] == nil {
			made[in] = copy(in)
		}
		m.names[name], m.dur[name] = made[in], made[in]
	}
}

// Clone returns the disk with everything that was written, as after a clean end.
func (m *Mem) Clone(seed uint64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := NewMem(seed)
	out.adopt(m.names, func(in *memInode) *memInode { return &memInode{cur: in.cur.clone(), dur: in.cur.clone()} })
	return out
}

// crash returns the inode as the power cut leaves it.
func (in *memInode) crash(rng *rand.Rand, c CrashChoice) *memInode {
	im := in.dur.clone()
	for _, w := range in.pend {
		for _, p := range w.survive(rng, c) {
			p.apply(&im)
		}
	}
	dur := im.clone()
	return &memInode{cur: im, dur: dur}
}

// orphan returns the inode as another process sees it after the first one died.
func (in *memInode) orphan(rng *rand.Rand) *memInode {
	out := &memInode{cur: in.cur.clone(), dur: in.dur.clone()}
	for _, w := range in.pend {
		if w.direct {
			if rng.IntN(2) == 0 {
				continue
			}
			w = w.part(0, w.n)
			w.apply(&out.cur)
		}
		out.pend = append(out.pend, w)
	}
	return out
}

// survive returns the parts of w that reach the platter.
func (w *memWrite) survive(rng *rand.Rand, c CrashChoice) []*memWrite {
	fate := c.Fate
	if fate == AnyFate {
		fate = Fate(1 + rng.IntN(3))
	}
	switch {
	case fate == KeepAll:
		return []*memWrite{w}
	case w.kind == truncWrite:
		if fate == TearAll && rng.IntN(2) == 0 {
			return []*memWrite{w}
		}
		return nil
	case fate == TearAll:
		parts := w.tear(rng)
		if c.Strict && rng.IntN(2) == 0 { // the size arrives without all of the data
			parts = append(parts, &memWrite{kind: dataWrite, off: w.end()})
		}
		return parts
	case c.Strict && rng.IntN(4) == 0:
		return []*memWrite{{kind: dataWrite, off: w.end()}}
	}
	return nil
}

// tear returns some of w's sectors: a prefix, a suffix or any subset.
func (w *memWrite) tear(rng *rand.Rand) []*memWrite {
	first := w.off / sector
	count := (w.end()+sector-1)/sector - first
	// A long run of zeroes tears in at most 64 places.
	unit := int64(sector)
	if w.kind == zeroWrite {
		unit = max(sector, (count+63)/64*sector)
	}
	how, cut := rng.IntN(3), w.off/unit+rng.Int64N(w.n/unit+2)
	var parts []*memWrite
	for u := w.off / unit; u*unit < w.end(); u++ {
		keep := u < cut
		switch how {
		case 1:
			keep = !keep
		case 2:
			keep = rng.IntN(2) == 0
		}
		if keep {
			parts = append(parts, w.part(max(u*unit, w.off)-w.off, min((u+1)*unit, w.end())-w.off))
		}
	}
	return parts
}

// ReadFile returns the content of a file as reads see it; fs.ErrNotExist.
// It is for tests and counts no operation.
func (m *Mem) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.names[name]
	if in == nil {
		return nil, wrap("read", name, 0, fs.ErrNotExist)
	}
	p := make([]byte, in.cur.size)
	in.cur.get(p, 0)
	return p, nil
}

// WriteFile replaces or makes a file, durably. It is for tests, to damage a
// disk at rest, and counts no operation. Open handles keep the old content.
func (m *Mem) WriteFile(name string, p []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := newInode()
	w := &memWrite{kind: dataWrite, data: p, n: int64(len(p))}
	w.apply(&in.cur)
	w.apply(&in.dur)
	m.names[name], m.dur[name] = in, in
}

// FlipBit inverts one bit of a file, durably; open handles see it. It is for
// tests and counts no operation.
func (m *Mem) FlipBit(name string, bit int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	in := m.names[name]
	for _, im := range []*memImage{&in.cur, &in.dur} {
		im.page(int(bit / 8 / memPage)).data[bit/8%memPage] ^= 1 << (bit % 8)
	}
}

func sortedNames(names map[string]*memInode) []string {
	list := make([]string, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	slices.Sort(list)
	return list
}
