package etcdfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// Log is what was read from an etcd member's log.
type Log struct {
	NodeID, ClusterID uint64
	Term, Commit      uint64 // of the newest state record
	Entries           []Entry
	Torn              bool // a record at the end was torn by a crash
}

// Entry is one raft entry. Data is an InternalRaftRequest, or for the two kinds
// of membership change a raftpb.ConfChange or ConfChangeV2.
type Entry struct {
	Type        EntryType
	Term, Index uint64
	Data        []byte
}

// EntryType is raftpb's.
type EntryType uint64

// The types of entries.
const (
	EntryNormal       EntryType = 0
	EntryConfChange   EntryType = 1
	EntryConfChangeV2 EntryType = 2
)

const (
	recMetadata = 1
	recEntry    = 2
	recState    = 3
	recCRC      = 4
	recSnapshot = 5

	frameBytes  = 8
	sectorBytes = 512
	walSuffix   = ".wal"
	// maxLogBytes bounds the entries that are kept: etcd commits to its database
	// every 100 ms and keeps five segments of 64 MB.
	maxLogBytes = 1 << 30
)

// ReadLog reads from the files in dir the entries behind index after, which is
// what the database has. Nothing is locked or changed.
func ReadLog(dir string, after uint64) (*Log, error) {
	names, err := logFiles(dir, after)
	if err != nil {
		return nil, err
	}
	l := &logReader{after: after, log: new(Log)}
	for i, name := range names {
		l.last = i == len(names)-1
		if err := l.file(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	if !l.hasMetadata {
		return nil, &CorruptError{File: dir, Off: -1, What: "the log has no metadata record"}
	}
	if l.newest < after {
		return nil, &CorruptError{File: dir, Off: -1, What: fmt.Sprintf("the log ends at entry %d, the database has %d", l.newest, after)}
	}
	return l.log, nil
}

// logFiles returns the files to read, in order: from the last one that begins at
// or before the entry wanted.
func logFiles(dir string, after uint64) ([]string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if strings.HasSuffix(e.Name(), walSuffix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	from := -1
	var before uint64
	for i, name := range names {
		var seq, first uint64
		if n, _ := fmt.Sscanf(name, "%016x-%016x.wal", &seq, &first); n != 2 || len(name) != 33+len(walSuffix) {
			return nil, &CorruptError{File: filepath.Join(dir, name), Off: -1, What: "this is no name of a log file"}
		}
		if first <= after+1 {
			from = i
		} else if i > 0 && seq != before+1 {
			return nil, &CorruptError{File: dir, Off: -1, What: fmt.Sprintf("log file %d is missing", before+1)}
		}
		before = seq
	}
	if from < 0 {
		return nil, &CorruptError{File: dir, Off: -1, What: fmt.Sprintf("no log file has the entry behind index %d, to which the database goes", after)}
	}
	return names[from:], nil
}

type logReader struct {
	log         *Log
	after       uint64
	last        bool // this is the last file
	hasMetadata bool
	newest      uint64 // index of the newest entry
	crc         uint32
	bytes       int
	name        string
}

func (l *logReader) file(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	l.name = path
	return l.records(b)
}

// record is one walpb.Record.
type record struct {
	typ  uint64
	crc  uint32
	data []byte
}

var errTorn = errors.New("torn")

func (l *logReader) records(b []byte) error {
	for off := 0; ; {
		rec, next, err := l.record(b, off)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errTorn):
			l.log.Torn = true
			return nil
		case err != nil:
			return l.corrupt(off, "%v", err)
		}
		if err := l.take(rec); err != nil {
			return l.corrupt(off, "%v", err)
		}
		off = next
	}
}

func (l *logReader) corrupt(off int, format string, args ...any) error {
	return &CorruptError{File: l.name, Off: int64(off), What: fmt.Sprintf(format, args...)}
}

// record reads the record at off: io.EOF at the end of the file, errTorn for one
// that a crash has cut at the end of the log.
func (l *logReader) record(b []byte, off int) (rec record, next int, err error) {
	if len(b)-off < frameBytes {
		return rec, 0, io.EOF
	}
	frame := binary.LittleEndian.Uint64(b[off:])
	if frame == 0 {
		return rec, 0, io.EOF
	}
	size, pad := frame&(1<<56-1), uint64(0)
	if frame>>63 != 0 {
		pad = frame >> 56 & 7
	}
	from := off + frameBytes
	if size+pad > uint64(len(b)-from) {
		if l.last {
			return rec, 0, errTorn
		}
		return rec, 0, fmt.Errorf("a record of %d bytes, %d are left", size, len(b)-from)
	}
	next = from + int(size+pad)
	if rec, err = parseRecord(b[from : from+int(size)]); err == nil && rec.typ != recCRC {
		if sum := crc32.Update(l.crc, castagnoli, rec.data); sum == rec.crc {
			l.crc = sum
		} else {
			err = fmt.Errorf("CRC %#x, want %#x", rec.crc, sum)
		}
	}
	if err != nil && l.last && isTorn(b[from:from+int(size)], from) {
		err = errTorn
	}
	return rec, next, err
}

// isTorn tells whether a sector of the record was never written.
func isTorn(rec []byte, off int) bool {
	for i := 0; i < len(rec); {
		n := min(sectorBytes-(off+i)%sectorBytes, len(rec)-i)
		if !slices.ContainsFunc(rec[i:i+n], func(c byte) bool { return c != 0 }) {
			return true
		}
		i += n
	}
	return false
}

// parseRecord reads a walpb.Record.
func parseRecord(b []byte) (rec record, err error) {
	err = eachField(b, func(num protowire.Number, v uint64, p []byte) error {
		switch num {
		case 1:
			rec.typ = v
		case 2:
			rec.crc = uint32(v)
		case 3:
			rec.data = p
		}
		return nil
	})
	return rec, err
}

func (l *logReader) take(rec record) error {
	switch rec.typ {
	case recMetadata:
		return l.metadata(rec.data)
	case recEntry:
		return l.entry(rec.data)
	case recState:
		return eachField(rec.data, func(num protowire.Number, v uint64, _ []byte) error {
			switch num {
			case 1:
				l.log.Term = v
			case 3:
				l.log.Commit = v
			}
			return nil
		})
	case recCRC:
		if l.crc != 0 && l.crc != rec.crc {
			return fmt.Errorf("CRC of the file before is %#x, want %#x", rec.crc, l.crc)
		}
		l.crc = rec.crc
		return nil
	case recSnapshot:
		return nil // the database stands for it
	}
	return fmt.Errorf("record type %d", rec.typ)
}

func (l *logReader) metadata(b []byte) error {
	var node, cluster uint64
	err := eachField(b, func(num protowire.Number, v uint64, _ []byte) error {
		switch num {
		case 1:
			node = v
		case 2:
			cluster = v
		}
		return nil
	})
	if err == nil && l.hasMetadata && (node != l.log.NodeID || cluster != l.log.ClusterID) {
		err = fmt.Errorf("the log is of member %x of cluster %x before, and of %x of %x here", l.log.NodeID, l.log.ClusterID, node, cluster)
	}
	l.log.NodeID, l.log.ClusterID, l.hasMetadata = node, cluster, true
	return err
}

func (l *logReader) entry(b []byte) error {
	var e Entry
	err := eachField(b, func(num protowire.Number, v uint64, p []byte) error {
		switch num {
		case 1:
			e.Type = EntryType(v)
		case 2:
			e.Term = v
		case 3:
			e.Index = v
		case 4:
			e.Data = p
		}
		return nil
	})
	if err != nil {
		return err
	}
	l.newest = e.Index
	if e.Index <= l.after {
		return nil
	}
	at := e.Index - l.after - 1
	if at > uint64(len(l.log.Entries)) {
		return fmt.Errorf("entry %d follows entry %d", e.Index, l.after+uint64(len(l.log.Entries)))
	}
	for _, gone := range l.log.Entries[at:] {
		l.bytes -= len(gone.Data)
	}
	if l.bytes += len(e.Data); l.bytes > maxLogBytes {
		return fmt.Errorf("more than %d bytes of entries are not in the database", maxLogBytes)
	}
	l.log.Entries = append(l.log.Entries[:at], e)
	return nil
}

// eachField walks the varint and length-delimited fields of a message.
func eachField(b []byte, fn func(num protowire.Number, v uint64, p []byte) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var v uint64
		var p []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			p, n = protowire.ConsumeBytes(b)
		default:
			return fmt.Errorf("field %d has wire type %d", num, typ)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := fn(num, v, p); err != nil {
			return err
		}
	}
	return nil
}
