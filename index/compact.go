package index

// Compaction removes, for a compact revision C, every version older than C
// that was superseded at or before C or is a tombstone. What was made at C
// itself stays until a later compaction, so that a watcher that starts at C
// still gets its events. Reads at C or later see no difference.
//
// It walks the revision log up to C. The event at revision M made a version
// that superseded the next older one of its key: that one goes. So compaction
// costs what it removes, however many keys there are, and each step is O(1)
// but for a tombstone, which takes its key out of the tree (a descent) or, if
// the key has come back, out of the middle of its chain (O(log versions)).

// CompactTo makes rev the compact revision. Reads below it mean nothing from
// now on; what it makes superfluous is removed by CompactStep. A rev not
// above the current compact revision does nothing. Must be called between
// BeginWrite and EndWrite.
func (x *Index) CompactTo(rev int64) {
	if rev <= x.compact {
		return
	}
	x.compact = rev
	x.next = x.log.head
	x.done = false
}

// CompactStep goes through at most limit events of the log and appends the
// versions it removed to freed. done says that nothing is
// left to remove. Must be called between BeginWrite and EndWrite; a limit of
// some hundred keeps the hold short.
func (x *Index) CompactStep(freed []VersionRef, limit int) (_ []VersionRef, done bool) {
	g := &x.log
	for ; !x.done && limit > 0; limit-- {
		x.next = g.skipGap(x.next)
		if x.next >= g.tail {
			x.done = true
			break
		}
		e := g.at(x.next)
		if e.main > x.compact {
			x.done = true
			break
		}
		x.next++
		if e.main < x.compact {
			g.dropFirst()
			x.next = g.head
		}
		freed = x.settle(freed, e)
	}
	return freed, x.done
}

// settle removes what the event e, at or before the compact revision, makes
// superfluous: the version it superseded and, if it is an old tombstone, its
// own.
func (x *Index) settle(freed []VersionRef, e entry) []VersionRef {
	if old := x.a.older(e.ref); old != 0 && x.a.main(old) < x.compact {
		x.a.setOlder(e.ref, 0)
		freed = x.dropVersion(freed, old)
	}
	if e.main == x.compact || x.a.live(e.ref) {
		return freed
	}
	key := x.a.keyRecord(e.ref)
	if key == e.ref {
		return x.dropKey(freed, key)
	}
	// The key has come back since. If that was after the compact revision,
	// the tombstone is the end of the chain; if it was before, the event
	// of the come-back removes it.
	if x.a.main(key) > x.compact {
		newer := x.a.findNewer(key, x.compact)
		if x.a.older(newer) == e.ref {
			x.a.setOlder(newer, 0)
			freed = x.dropVersion(freed, e.ref)
		}
	}
	return freed
}

func (x *Index) dropVersion(freed []VersionRef, r ref) []VersionRef {
	x.versions--
	return append(freed, x.a.drop(r))
}

// dropKey removes a key with its only version.
func (x *Index) dropKey(freed []VersionRef, r ref) []VersionRef {
	x.removed++
	x.tree.remove(r)
	x.table.remove(x.table.hash(x.a.key(r)), r)
	return x.dropVersion(freed, r)
}
