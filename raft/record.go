package raft

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
)

// Records of the write-ahead log; doc.go has the byte tables.
const (
	recEntry  = 1 // one raft entry
	recState  = 2 // term, vote, commit
	recBase   = 3 // where the log starts, whose it is, and the hard state
	recIntent = 4 // a snapshot is about to replace the store
	recSound  = 5 // what a cut took from the log is there again
)

const (
	baseVersion    = 1
	entryHeadBytes = 1 + 1 + 3*8
	stateBytes     = 1 + 3*8
	baseHeadBytes  = 1 + 1 + 7*8
	intentBytes    = 1 + 2*8
)

// entryID names one entry for ever: at most one entry exists per term and index.
type entryID struct {
	index, term uint64
}

// hardState is what a member must never forget; commit only saves time.
type hardState struct {
	term, vote, commit uint64
}

// baseRecord says that the log starts after at.
type baseRecord struct {
	member, cluster uint64
	at              entryID
	hs              hardState
	confState       []byte // only for the bootstrap (at.index 1)
}

func appendU64s(dst []byte, vs ...uint64) []byte {
	for _, v := range vs {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	return dst
}

func u64at(b []byte, i int) uint64 { return binary.LittleEndian.Uint64(b[i*8:]) }

// appendEntryHead appends the head of an entry record; the entry's data follows.
func appendEntryHead(dst []byte, e *raftpb.Entry, commit uint64) []byte {
	dst = append(dst, recEntry, byte(e.GetType()))
	return appendU64s(dst, e.GetTerm(), e.GetIndex(), commit)
}

func appendState(dst []byte, hs hardState) []byte {
	return appendU64s(append(dst, recState), hs.term, hs.vote, hs.commit)
}

func appendBase(dst []byte, b baseRecord) []byte {
	dst = append(dst, recBase, baseVersion)
	dst = appendU64s(dst, b.member, b.cluster, b.at.index, b.at.term, b.hs.term, b.hs.vote, b.hs.commit)
	return append(dst, b.confState...)
}

func appendIntent(dst []byte, id entryID) []byte {
	return appendU64s(append(dst, recIntent), id.index, id.term)
}

// decodeEntry copies the data: rec is valid only during the replay call.
func decodeEntry(rec []byte) (e *raftpb.Entry, commit uint64, err error) {
	if len(rec) < entryHeadBytes {
		return nil, 0, fmt.Errorf("entry record of %d bytes, want at least %d", len(rec), entryHeadBytes)
	}
	typ := raftpb.EntryType(rec[1])
	if typ != raftpb.EntryNormal && typ != raftpb.EntryConfChangeV2 {
		return nil, 0, fmt.Errorf("entry type %d", rec[1])
	}
	f := rec[2:]
	term, index := u64at(f, 0), u64at(f, 1)
	if term == 0 || index == 0 {
		return nil, 0, fmt.Errorf("entry with term %d and index %d", term, index)
	}
	e = &raftpb.Entry{Term: &term, Index: &index, Type: typ.Enum()}
	if len(rec) > entryHeadBytes {
		e.Data = append([]byte(nil), rec[entryHeadBytes:]...)
	}
	return e, u64at(f, 2), nil
}

func decodeState(rec []byte) (hardState, error) {
	if len(rec) != stateBytes {
		return hardState{}, fmt.Errorf("state record of %d bytes, want %d", len(rec), stateBytes)
	}
	f := rec[1:]
	return hardState{u64at(f, 0), u64at(f, 1), u64at(f, 2)}, nil
}

func decodeBase(rec []byte) (baseRecord, error) {
	if len(rec) < baseHeadBytes {
		return baseRecord{}, fmt.Errorf("base record of %d bytes, want at least %d", len(rec), baseHeadBytes)
	}
	if rec[1] != baseVersion {
		return baseRecord{}, fmt.Errorf("log format version %d, this program knows %d", rec[1], baseVersion)
	}
	f := rec[2:]
	b := baseRecord{
		member: u64at(f, 0), cluster: u64at(f, 1),
		at: entryID{u64at(f, 2), u64at(f, 3)},
		hs: hardState{u64at(f, 4), u64at(f, 5), u64at(f, 6)},
	}
	if len(rec) > baseHeadBytes {
		b.confState = append([]byte(nil), rec[baseHeadBytes:]...)
	}
	return b, nil
}

func decodeIntent(rec []byte) (entryID, error) {
	if len(rec) != intentBytes {
		return entryID{}, fmt.Errorf("intent record of %d bytes, want %d", len(rec), intentBytes)
	}
	f := rec[1:]
	return entryID{u64at(f, 0), u64at(f, 1)}, nil
}
