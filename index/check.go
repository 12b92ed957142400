package index

import (
	"bytes"
	"fmt"
	"math/bits"
)

// CheckInvariants walks the whole directory and returns the first broken
// invariant. It is for tests: its cost is that of a dump. It must not run
// beside a writer.
func (x *Index) CheckInvariants() error {
	c := checker{x: x, a: x.a, records: map[ref]bool{}, inLog: map[ref]bool{}}
	for _, check := range []func() error{c.table, c.chains, c.tree, c.log, c.arena} {
		if err := check(); err != nil {
			return fmt.Errorf("index: broken invariant: %w", err)
		}
	}
	return nil
}

type checker struct {
	x       *Index
	a       *arena
	keys    []ref
	records map[ref]bool // reachable: keys' records and chained versions
	inLog   map[ref]bool
	prev    ref // last key's record in order
	last    uint32
}

// table: each key's record is found by its key, and counted.
func (c *checker) table() error {
	for i := range c.x.table.shards {
		s := &c.x.table.shards[i]
		used := 0
		for _, v := range s.slots {
			if v == 0 {
				continue
			}
			used++
			r := ref(v)
			if c.a.flags(r)&freeMark != flagKey {
				return fmt.Errorf("slot of %d with flags %#x", r, c.a.flags(r))
			}
			key := c.a.key(r)
			if got := c.x.table.find(c.a, c.x.table.hash(key), key); got != r {
				return fmt.Errorf("key %q: slot of %d finds %d", key, r, got)
			}
			c.keys = append(c.keys, r)
			c.records[r] = true
		}
		if used != s.used || used*5 > len(s.slots)*4 {
			return fmt.Errorf("shard %d: %d used, counted %d of %d", i, s.used, used, len(s.slots))
		}
	}
	return nil
}

// chains: versions descend, know their key, and jumps lead where they say.
func (c *checker) chains() error {
	for _, key := range c.keys {
		if err := c.chain(key); err != nil {
			return fmt.Errorf("key %q: %w", c.a.key(key), err)
		}
	}
	if int64(len(c.records)) != c.x.versions {
		return fmt.Errorf("%d versions, counted %d", c.x.versions, len(c.records))
	}
	return nil
}

func (c *checker) chain(key ref) error {
	a, compact := c.a, c.x.compact
	var members []ref
	for r := a.older(key); r != 0; r = a.older(r) {
		newer := key
		if n := len(members); n > 0 {
			newer = members[n-1]
		}
		if c.records[r] {
			return fmt.Errorf("version %d is in two chains", r)
		}
		c.records[r] = true
		members = append(members, r)
		if a.flags(r)&flagKey != 0 || a.keyRecord(r) != key {
			return fmt.Errorf("version %d belongs to %d", r, a.keyRecord(r))
		}
		if a.main(r) > a.main(newer) || a.main(r) == a.main(newer) && a.sub(r) >= a.sub(newer) {
			return fmt.Errorf("version %d/%d below %d/%d", a.main(r), a.sub(r), a.main(newer), a.sub(newer))
		}
		if c.x.done && a.main(newer) <= compact && a.main(r) < compact {
			return fmt.Errorf("superseded at %d, compact revision %d", a.main(newer), compact)
		}
		if c.x.done && !a.live(r) && a.main(r) < compact {
			return fmt.Errorf("tombstone of %d, compact revision %d", a.main(r), compact)
		}
	}
	if c.x.done && len(members) == 0 && !a.live(key) && a.main(key) < compact {
		return fmt.Errorf("only a tombstone of %d, compact revision %d", a.main(key), compact)
	}
	return c.towers(members)
}

// towers checks distances and jumps of one chain, given newest first.
func (c *checker) towers(members []ref) error {
	a := c.a
	var towers []ref
	for i := len(members) - 1; i >= 0; i-- {
		r := members[i]
		dist := a.flags(r) >> distShift
		if i+1 < len(members) {
			want := a.flags(members[i+1])>>distShift + 1
			if tower := a.flags(r)&flagTower != 0; tower != (want == towerEvery) || !tower && dist != want {
				return fmt.Errorf("version %d: distance %d, tower %v, want %d", r, dist, tower, want)
			}
		}
		if a.flags(r)&flagTower == 0 {
			continue
		}
		no := a.towerNo(r)
		towers = append(towers, r)
		if a.jumpMain(r) <= c.x.compact {
			continue
		}
		at := len(towers) - 1 - int(jumpLength(no))
		if at < 0 || towers[at] != a.jump(r) || a.main(a.jump(r)) != a.jumpMain(r) {
			return fmt.Errorf("tower %d jumps to %d", no, a.jump(r))
		}
	}
	return nil
}

// tree: order, hints, separators, counts, leaf list, merge rule.
func (c *checker) tree() error {
	t := c.x.tree
	got, err := c.node(t.root, t.height)
	if err != nil {
		return err
	}
	if int(got.keys) != len(c.keys) {
		return fmt.Errorf("%d keys in the tree, %d in the table", got.keys, len(c.keys))
	}
	if t.leaves.at(c.last).next != 0 {
		return fmt.Errorf("the last leaf has a next")
	}
	return nil
}

func (c *checker) node(no uint32, height int) (sum counts, err error) {
	t := c.x.tree
	if height == 0 {
		return c.leaf(no)
	}
	x := t.inners.at(no)
	if err := c.entries(&x.entries); err != nil {
		return sum, err
	}
	if x.n < 2 && no == t.root {
		return sum, fmt.Errorf("root of height %d with %d children", height, x.n)
	}
	for i := range int(x.n) {
		if t.low(x.child[i], height-1) != x.ref[i] {
			return sum, fmt.Errorf("inner %d: entry %d is not its child's lowest", no, i)
		}
		got, err := c.node(x.child[i], height-1)
		if err != nil {
			return sum, err
		}
		if got != (counts{x.keys[i], x.live[i]}) || got.keys == 0 {
			return sum, fmt.Errorf("inner %d: child %d counts %v, has %d and %d", no, i, got, x.keys[i], x.live[i])
		}
		sum.add(got.keys, got.live)
		if i > 1 && t.size(x.child[i-2], height-1)+t.size(x.child[i-1], height-1)+t.size(x.child[i], height-1) <= mergeTo {
			return sum, fmt.Errorf("inner %d: children %d to %d could be one", no, i-2, i)
		}
	}
	return sum, nil
}

func (c *checker) leaf(no uint32) (sum counts, err error) {
	l := c.x.tree.leaves.at(no)
	if err := c.entries(&l.entries); err != nil {
		return sum, err
	}
	if l.prev != c.last || c.last != 0 && c.x.tree.leaves.at(c.last).next != no {
		return sum, fmt.Errorf("leaf %d is not linked with %d", no, c.last)
	}
	c.last = no
	for i := range int(l.n) {
		r := l.ref[i]
		if c.prev != 0 && bytes.Compare(c.a.key(c.prev), c.a.key(r)) >= 0 {
			return sum, fmt.Errorf("key %q before %q", c.a.key(c.prev), c.a.key(r))
		}
		c.prev = r
		if !c.records[r] || l.live>>i&1 != 0 != c.a.live(r) {
			return sum, fmt.Errorf("leaf %d: entry %d is %d, live %v", no, i, r, c.a.live(r))
		}
	}
	if l.live>>l.n != 0 {
		return sum, fmt.Errorf("leaf %d: live bits %#x of %d", no, l.live, l.n)
	}
	return counts{uint32(l.n), uint32(bits.OnesCount64(l.live))}, nil
}

func (c *checker) entries(e *entries) error {
	for i := range int(e.n) {
		key, p := c.a.key(e.ref[i]), int(e.prefixBytes)
		if len(key) < p || e.comparePrefix(c.a, key) != 0 || e.hint[i] != hintOf(key, p) {
			return fmt.Errorf("key %q: prefix of %d bytes, hint %#x", key, p, e.hint[i])
		}
	}
	return nil
}

// log: in order, and exactly the retained versions from its first main on.
func (c *checker) log() error {
	g := &c.x.log
	var mainBefore int64
	var subBefore int32
	edges := map[int]int32{}
	events := 0
	for pos := g.skipGap(g.head); pos < g.tail; pos = g.skipGap(pos + 1) {
		events++
		e := g.at(pos)
		no, _ := g.chunkNo(pos)
		if e.edge {
			edges[no]++
		}
		main, sub := c.a.main(e.ref), c.a.sub(e.ref)
		if !c.records[e.ref] || main != e.main {
			return fmt.Errorf("event of %d refers to %d of %d", e.main, e.ref, main)
		}
		if main < mainBefore || main == mainBefore && sub <= subBefore {
			return fmt.Errorf("event %d/%d behind %d/%d", main, sub, mainBefore, subBefore)
		}
		mainBefore, subBefore = main, sub
		c.inLog[e.ref] = true
	}
	if n, _ := g.after(g.head); n != events {
		return fmt.Errorf("%d events, counted %d", n, events)
	}
	for no, sp := range g.spans {
		if sp.edges != edges[no] {
			return fmt.Errorf("log chunk %d: %d edges, counted %d", no, sp.edges, edges[no])
		}
	}
	for r := range c.records {
		if c.a.main(r) >= c.x.compact && !c.inLog[r] {
			return fmt.Errorf("version %d/%d is not in the log", c.a.main(r), c.a.sub(r))
		}
	}
	return nil
}

// arena: the blocks are the reachable records and the free ones.
func (c *checker) arena() error {
	a := c.a
	free := map[ref]uint32{}
	records, chunks := 0, 0
	for no := range a.numbers {
		in := &a.info[no]
		switch in.state {
		case chunkJumbo:
			if !c.records[ref(no<<chunkUnitBits)] {
				return fmt.Errorf("jumbo chunk %d is not reachable", no)
			}
			records++
			continue
		case chunkSmall:
			chunks++
		default:
			continue
		}
		used := uint32(0)
		for off := uint32(0); off < in.end; {
			r := ref(no<<chunkUnitBits | off)
			if a.flags(r)&freeMark == freeMark {
				free[r] = uint32(*a.word(r, 0))
				off += free[r]
				continue
			}
			if !c.records[r] {
				return fmt.Errorf("record %d is not reachable", r)
			}
			records++
			_, size := classOf(a.units(r))
			used += size
			off += size
		}
		if used != in.used || used == 0 && !in.bumping {
			return fmt.Errorf("chunk %d: %d units used, counted %d", no, in.used, used)
		}
	}
	if records != len(c.records) {
		return fmt.Errorf("%d records in the arena, %d reachable", records, len(c.records))
	}
	return c.freeLists(free)
}

// freeLists: they hold exactly the free blocks that a record could use.
func (c *checker) freeLists(free map[ref]uint32) error {
	for k := range c.a.free {
		f := &c.a.free[k]
		for class, r := range f.head {
			if (r != 0) != (f.set[class/64]>>(class%64)&1 != 0) {
				return fmt.Errorf("class %d: bitmap does not agree", class)
			}
			for prev := ref(0); r != 0; {
				size, ok := free[r]
				got, _ := classBelow(size)
				links := *c.a.word(r, 1)
				if !ok || got != class || ref(links>>32) != prev {
					return fmt.Errorf("class %d: block %d of %d units, prev %d", class, r, size, links>>32)
				}
				delete(free, r)
				prev, r = r, ref(links)
			}
		}
	}
	for r, size := range free {
		if size >= headerUnits {
			return fmt.Errorf("free block %d of %d units is in no list", r, size)
		}
	}
	return nil
}
