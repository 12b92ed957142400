package index

// Records. Every version has the same five-word header, be it the newest one,
// which lies in its key's record, or an older one in a record of its own:
//
//	word 0   flags (8 bits)          main (56)
//	word 1   ver bits 32–39          create (56)
//	word 2   ver bits 40–47          location (56)
//	word 3   sub (32)                older version (32)
//	word 4   key length | key (32)   ver bits 0–31
//
// A key's record goes on with the key's bytes, and word 4 holds their number.
// In an older version's record word 4 names the key's record. A tower (see
// chain.go) goes on with
//
//	word 5   number of the tower (32)   jump (32)
//	word 6   main of the jump's target
const (
	headerUnits = 5
	towerUnits  = 7
)

// Flags of word 0.
const (
	flagTombstone = 1 << iota
	flagLease
	flagKey     // this is a key's record
	flagTower   // this is a version's record with a jump
	flagDistOne // 4 bits: versions since the last tower
)

const (
	flagShift = 56
	distShift = 4
	freeMark  = flagKey | flagTower // what no record has: a free block
	// versionFlags are those that belong to the version, wherever it lies.
	versionFlags = flagTombstone | flagLease
	lowMask      = 1<<56 - 1
	half         = 1<<32 - 1
)

func keyUnits(keyBytes int) uint32 {
	return headerUnits + uint32((keyBytes+7)/8)
}

func (a *arena) flags(r ref) uint64 { return *a.word(r, 0) >> flagShift }
func (a *arena) main(r ref) int64   { return int64(*a.word(r, 0) & lowMask) }
func (a *arena) sub(r ref) int32    { return int32(*a.word(r, 3) >> 32) }
func (a *arena) older(r ref) ref    { return ref(*a.word(r, 3)) }
func (a *arena) loc(r ref) Loc      { return Loc(*a.word(r, 2) & lowMask) }

func (a *arena) live(r ref) bool { return a.flags(r)&flagTombstone == 0 }

func (a *arena) setOlder(r, older ref) {
	w := a.word(r, 3)
	*w = *w&^half | uint64(older)
}

func (a *arena) setLoc(r ref, loc Loc) {
	w := a.word(r, 2)
	*w = *w&^lowMask | uint64(loc)
}

// keyBytes returns the length of the key of a key's record.
func (a *arena) keyBytes(r ref) uint32 { return uint32(*a.word(r, 4) >> 32) }

// key returns the key of a key's record, in the arena.
func (a *arena) key(r ref) []byte {
	return a.bytes(r, headerUnits, int(a.keyBytes(r)))
}

// keyRecord returns the key's record of any version's record.
func (a *arena) keyRecord(r ref) ref {
	if a.flags(r)&flagKey != 0 {
		return r
	}
	return ref(*a.word(r, 4) >> 32)
}

// units returns the size of a record as it was asked for.
func (a *arena) units(r ref) uint32 {
	switch f := a.flags(r); {
	case f&flagKey != 0:
		return keyUnits(int(a.keyBytes(r)))
	case f&flagTower != 0:
		return towerUnits
	}
	return headerUnits
}

// version unpacks the header.
func (a *arena) version(r ref) Version {
	w0, w1, w2 := *a.word(r, 0), *a.word(r, 1), *a.word(r, 2)
	w3, w4 := *a.word(r, 3), *a.word(r, 4)
	return Version{
		Main:      int64(w0 & lowMask),
		Create:    int64(w1 & lowMask),
		Ver:       int64(w4&half | w1>>flagShift<<32 | w2>>flagShift<<40),
		Loc:       Loc(w2 & lowMask),
		Sub:       int32(w3 >> 32),
		Tombstone: w0>>flagShift&flagTombstone != 0,
		HasLease:  w0>>flagShift&flagLease != 0,
	}
}

// setVersion packs v into the header. flags are those that v does not carry;
// owner is the upper half of word 4.
func (a *arena) setVersion(r ref, v *Version, flags uint64, older ref, owner uint32) {
	if v.Tombstone {
		flags |= flagTombstone
	}
	if v.HasLease {
		flags |= flagLease
	}
	ver := uint64(v.Ver)
	*a.word(r, 0) = flags<<flagShift | uint64(v.Main)
	*a.word(r, 1) = ver>>32<<flagShift | uint64(v.Create)
	*a.word(r, 2) = ver>>40<<flagShift | uint64(v.Loc)
	*a.word(r, 3) = uint64(uint32(v.Sub))<<32 | uint64(older)
	*a.word(r, 4) = uint64(owner)<<32 | ver&half
}

// newKey makes the record of a key whose only version is v.
func (a *arena) newKey(key []byte, v *Version) ref {
	r := a.alloc(keyKind, keyUnits(len(key)))
	a.setVersion(r, v, flagKey, 0, uint32(len(key)))
	copy(a.key(r), key)
	return r
}

// drop frees a record and returns what it was.
func (a *arena) drop(r ref) VersionRef {
	v := VersionRef{Main: a.main(r), Loc: a.loc(r), Sub: a.sub(r), Tombstone: !a.live(r)}
	kind := versionKind
	if a.flags(r)&flagKey != 0 {
		kind = keyKind
	}
	a.release(kind, r, a.units(r))
	return v
}
