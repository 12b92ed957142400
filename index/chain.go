package index

import "math/bits"

// A key's versions form a chain, newest first: the key's record, then records
// of their own. So that a key written a million times since the last
// compaction can be read at an old revision without a walk over a million
// records, every eighth of the chained records is a tower: it carries a jump
// to an older tower, at a distance given by the skew-binary representation
// of its number (Myers 1983). A lookup costs O(log versions), adding a
// version O(1), and a chain of fewer than eight pays nothing.
//
// Jumps are never repaired: the target's main stands beside the jump, and a
// jump is taken only to a version newer than the revision looked for, which
// is at least the compact revision. What compaction frees is older.
const towerEvery = 8

// find returns the newest record of the chain that starts at the key's record
// r with main ≤ rev, or 0. floor is the compact revision; the answer is
// undefined but in memory still owned by the chain if rev < floor.
func (a *arena) find(r ref, rev, floor int64) ref {
	rev = max(rev, floor)
	if a.main(r) <= rev {
		return r
	}
	r = a.older(r)
	for r != 0 && a.main(r) > rev {
		if a.flags(r)&flagTower != 0 && a.jumpMain(r) > rev {
			r = a.jump(r)
			continue
		}
		r = a.older(r)
	}
	return r
}

// findNewer returns the oldest record with main > rev; rev must be at least
// the compact revision and the newest version newer than rev.
func (a *arena) findNewer(r ref, rev int64) ref {
	for {
		if a.flags(r)&freeMark == flagTower && a.jumpMain(r) > rev {
			r = a.jump(r)
			continue
		}
		next := a.older(r)
		if next == 0 || a.main(next) <= rev {
			return r
		}
		r = next
	}
}

func (a *arena) jump(r ref) ref       { return ref(*a.word(r, 5)) }
func (a *arena) towerNo(r ref) uint32 { return uint32(*a.word(r, 5) >> 32) }
func (a *arena) jumpMain(r ref) int64 { return int64(*a.word(r, 6)) }

// linkUnits returns the size of the record of a version that is to stand in
// front of older (0: at the end of the chain).
func (a *arena) linkUnits(older ref) uint32 {
	if older != 0 && a.flags(older)>>distShift+1 == towerEvery {
		return towerUnits
	}
	return headerUnits
}

// link fills in the record r, of linkUnits(older), of a version of key that
// stands in front of older. The header is copied from from, whose flags
// beyond those of the version itself do not matter.
func (a *arena) link(r, from, key, older ref, floor int64) {
	flags := a.flags(from) & versionFlags
	if older != 0 {
		dist := a.flags(older)>>distShift + 1
		if dist == towerEvery {
			flags |= flagTower
			a.setTower(r, older, floor)
		} else {
			flags |= dist << distShift
		}
	}
	*a.word(r, 0) = flags<<flagShift | *a.word(from, 0)&lowMask
	*a.word(r, 1) = *a.word(from, 1)
	*a.word(r, 2) = *a.word(from, 2)
	*a.word(r, 3) = *a.word(from, 3)&^half | uint64(older)
	*a.word(r, 4) = uint64(key)<<32 | *a.word(from, 4)&half
}

// push moves the newest version out of the key's record into a record of its
// own, which it returns. The caller then writes the new version into the
// key's record, with that as the older one.
func (a *arena) push(key ref, floor int64) ref {
	older := a.older(key)
	r := a.alloc(versionKind, a.linkUnits(older))
	a.link(r, key, key, older, floor)
	return r
}

// setTower fills in the jump of the tower r whose chain goes on with older.
func (a *arena) setTower(r, older ref, floor int64) {
	before := older
	for before != 0 && a.flags(before)&flagTower == 0 {
		before = a.older(before)
	}
	if before == 0 {
		*a.word(r, 5), *a.word(r, 6) = 0, 0
		return
	}
	no := a.towerNo(before) + 1
	target, main := before, a.main(before)
	if jumpLength(no) > 1 {
		target, main = 0, 0
		if a.jumpMain(before) > floor {
			mid := a.jump(before)
			target, main = a.jump(mid), a.jumpMain(mid)
		}
	}
	*a.word(r, 5) = uint64(no)<<32 | uint64(target)
	*a.word(r, 6) = uint64(main)
}

// jumpLength is how many towers the jump of tower no goes back: the smallest
// term of no as a greedy sum of numbers 2^k-1. A length above 1 is reached
// by two jumps of half of it from the tower before.
func jumpLength(no uint32) uint32 {
	term := uint32(0)
	for no > 0 {
		term = 1<<(bits.Len32(no+1)-1) - 1
		no -= term
	}
	return term
}
