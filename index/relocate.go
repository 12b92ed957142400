package index

// Relocation names a version whose record has moved.
type Relocation struct {
	Key  []byte
	Main int64
	Sub  int32
	Old  Loc
	New  Loc
}

// Relocate sets the location of a version to m.New, provided it is m.Old. It
// returns false if it is not, or if the version has been removed: then the
// record at m.New is not wanted. Must be called between BeginWrite and
// EndWrite.
func (x *Index) Relocate(m Relocation) bool {
	r := x.version(m.Key, m.Main, m.Sub)
	if r == 0 || x.a.loc(r) != m.Old {
		return false
	}
	if m.New > maxLoc {
		panic("index: location out of range")
	}
	x.a.setLoc(r, m.New)
	return true
}

// Holds says whether the version (main, sub) of key is retained and its
// record lies at loc. Reclaim asks it before it copies a record.
func (x *Index) Holds(m Relocation) bool {
	x.mu.RLock()
	defer x.mu.RUnlock()
	r := x.version(m.Key, m.Main, m.Sub)
	return r != 0 && x.a.loc(r) == m.Old
}

// version returns the record of a retained version, or 0.
func (x *Index) version(key []byte, main int64, sub int32) ref {
	r := x.table.find(x.a, x.table.hash(key), key)
	if r == 0 {
		return 0
	}
	r = x.a.find(r, main, x.compact)
	for r != 0 && x.a.main(r) == main && x.a.sub(r) > sub {
		r = x.a.older(r)
	}
	if r == 0 || x.a.main(r) != main || x.a.sub(r) != sub {
		return 0
	}
	return r
}
