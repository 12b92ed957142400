package etcdfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	pb "quire/api/etcdserverpb"
)

// logWriter makes log files as etcd does.
type logWriter struct {
	t   *testing.T
	dir string
	crc uint32
	buf []byte
	seq int
}

func newLog(t *testing.T) *logWriter {
	w := &logWriter{t: t, dir: t.TempDir()}
	w.head()
	return w
}

func (w *logWriter) head() {
	w.put(recCRC, nil)
	w.put(recMetadata, message(1, uint64(11), 2, uint64(22)))
}

// message encodes pairs of field number and value, uint64 or []byte.
func message(fields ...any) (b []byte) {
	for i := 0; i < len(fields); i += 2 {
		num := protowire.Number(fields[i].(int))
		switch v := fields[i+1].(type) {
		case uint64:
			b = protowire.AppendVarint(protowire.AppendTag(b, num, protowire.VarintType), v)
		case []byte:
			b = protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), v)
		}
	}
	return b
}

func (w *logWriter) put(typ uint64, data []byte) {
	w.crc = crc32.Update(w.crc, castagnoli, data)
	rec := message(1, typ, 2, uint64(w.crc), 3, data)
	frame, pad := uint64(len(rec)), (8-len(rec)%8)%8
	if pad > 0 {
		frame |= uint64(0x80|pad) << 56
	}
	w.buf = binary.LittleEndian.AppendUint64(w.buf, frame)
	w.buf = append(append(w.buf, rec...), make([]byte, pad)...)
}

func (w *logWriter) entry(term, index uint64, data string) {
	w.put(recEntry, message(1, uint64(0), 2, term, 3, index, 4, []byte(data)))
}

func (w *logWriter) state(term, commit uint64) {
	w.put(recState, message(1, term, 2, uint64(11), 3, commit))
}

// cut ends the file and begins the next one, whose first entry will be index.
func (w *logWriter) cut(index uint64) {
	w.flush(0)
	w.buf, w.seq = nil, w.seq+1
	w.name(index)
	w.head()
}

var firstOf = map[string]uint64{}

func (w *logWriter) name(first uint64) { firstOf[fmt.Sprint(w.dir, w.seq)] = first }

// flush writes the file with some allocated room behind it.
func (w *logWriter) flush(room int) {
	name := fmt.Sprintf("%016x-%016x.wal", w.seq, firstOf[fmt.Sprint(w.dir, w.seq)])
	if err := os.WriteFile(filepath.Join(w.dir, name), append(bytes.Clone(w.buf), make([]byte, room)...), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func entries(l *Log) string {
	var b strings.Builder
	for _, e := range l.Entries {
		fmt.Fprintf(&b, "%d/%d=%s ", e.Index, e.Term, e.Data)
	}
	return strings.TrimSpace(b.String())
}

func TestLog(t *testing.T) {
	w := newLog(t)
	w.entry(1, 1, "a")
	w.entry(1, 2, "b")
	w.entry(1, 3, "lost")
	w.state(1, 2)
	w.cut(4)
	w.entry(1, 4, "lost too")
	w.put(recSnapshot, message(1, uint64(2), 2, uint64(1)))
	w.cut(5)
	w.entry(2, 3, "c") // another leader replaces 3 and 4
	w.entry(2, 4, "d")
	w.state(2, 3)
	w.flush(4096)
	for after, want := range map[uint64]string{0: "1/1=a 2/1=b 3/2=c 4/2=d", 2: "3/2=c 4/2=d", 4: ""} {
		l, err := ReadLog(w.dir, after)
		if err != nil {
			t.Fatal(err)
		}
		if got := entries(l); got != want || l.Term != 2 || l.Commit != 3 || l.NodeID != 11 || l.ClusterID != 22 || l.Torn {
			t.Errorf("after %d: %s, %+v, want %s", after, got, l, want)
		}
	}
}

func TestLogTorn(t *testing.T) {
	w := newLog(t)
	w.entry(1, 1, "whole")
	at := len(w.buf)
	w.entry(1, 2, strings.Repeat("x", 2000))
	whole := bytes.Clone(w.buf)
	for name, tear := range map[string]func(b []byte) []byte{
		"sector not written": func(b []byte) []byte { clear(b[1024:1536]); return b },
		"file ends":          func(b []byte) []byte { return b[:len(b)-9] },
	} {
		w.buf = tear(bytes.Clone(whole))
		w.flush(0)
		l, err := ReadLog(w.dir, 0)
		if err != nil || !l.Torn || entries(l) != "1/1=whole" {
			t.Errorf("%s: %+v, %v", name, l, err)
		}
	}
	w.buf = bytes.Clone(whole)
	w.buf[at+50] ^= 1
	w.flush(0)
	var corrupt *CorruptError
	if l, err := ReadLog(w.dir, 0); !errors.As(err, &corrupt) || corrupt.Off != int64(at) {
		t.Errorf("a flipped bit: %+v, %v", l, err)
	}
	// In a file that another one follows nothing can be torn.
	w.buf = whole
	clear(w.buf[1024:1536])
	w.cut(3)
	w.flush(0)
	if l, err := ReadLog(w.dir, 0); !errors.As(err, &corrupt) {
		t.Errorf("a hole in the middle: %+v, %v", l, err)
	}
}

func TestLogIncomplete(t *testing.T) {
	w := newLog(t)
	w.entry(1, 1, "a")
	w.cut(2)
	w.entry(1, 2, "b")
	w.cut(3)
	w.entry(1, 3, "c")
	w.flush(0)
	remove := func(name string) {
		if err := os.Remove(filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	var corrupt *CorruptError
	remove("0000000000000000-0000000000000000.wal")
	if _, err := ReadLog(w.dir, 0); !errors.As(err, &corrupt) {
		t.Errorf("a log that begins too late: %v", err)
	}
	if l, err := ReadLog(w.dir, 1); err != nil || entries(l) != "2/1=b 3/1=c" {
		t.Errorf("a log that was trimmed: %v", err)
	}
	if _, err := ReadLog(w.dir, 9); !errors.As(err, &corrupt) {
		t.Errorf("a log that ends before the database: %v", err)
	}
	w2 := newLog(t)
	w2.entry(1, 1, "a")
	w2.entry(1, 3, "c")
	w2.flush(0)
	if _, err := ReadLog(w2.dir, 0); !errors.As(err, &corrupt) {
		t.Errorf("a log with a gap: %v", err)
	}
}

// TestGoldenLog reads the log of an etcd 3.7.1 that was killed.
func TestGoldenLog(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "0000000000000000-0000000000000000.wal"), unzip(t, "killed.wal.gz"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := ReadLog(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if l.NodeID != 0xac7c97ef0ec193b0 || l.ClusterID != 0x8cc9da78b36d1115 || l.Term != 2 || len(l.Entries) != 32 {
		t.Fatalf("member %x of cluster %x, term %d, %d entries", l.NodeID, l.ClusterID, l.Term, len(l.Entries))
	}
	kinds := map[RequestKind]int{}
	for _, e := range l.Entries {
		if e.Type != EntryNormal {
			c, err := ParseConfChange(e.Data)
			if err != nil || c.Node == 0 {
				t.Errorf("entry %d: %+v, %v", e.Index, c, err)
			}
			kinds[RequestKind(-1-int(c.Kind))]++
			continue
		}
		r, err := ParseRequest(e.Data)
		if err != nil {
			t.Errorf("entry %d: %v", e.Index, err)
		}
		kinds[r.Kind]++
		checkGolden(t, r)
	}
	want := map[RequestKind]int{
		KindNone: 1, KindPut: 9, KindDeleteRange: 2, KindTxn: 1, KindCompaction: 1, KindLeaseGrant: 2,
		KindAuthRoleAdd: 1, KindAuthRoleGrantPermission: 1, KindAuthUserAdd: 2, KindAuthUserGrantRole: 2, KindAuthEnable: 1,
		KindAuthenticate: 4, KindClusterVersionSet: 1, KindClusterMemberAttrSet: 1,
		-1: 1, -2: 1, -4: 1, // add, remove, add a learner
	}
	if fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("kinds %v, want %v", kinds, want)
	}
}

func checkGolden(t *testing.T, r Request) {
	switch r.Kind {
	case KindPut:
		var p pb.PutRequest
		if err := p.UnmarshalVT(r.Body); err != nil {
			t.Error(err)
		}
		if string(p.Key) == "after-auth" && (r.User != "root" || r.AuthRevision != 7) {
			t.Errorf("%v of user %q at auth revision %d", &p, r.User, r.AuthRevision)
		}
	case KindClusterVersionSet:
		if v, err := ParseClusterVersion(r.Body); err != nil || v != "3.7.0" {
			t.Error(v, err)
		}
	case KindClusterMemberAttrSet:
		if m, err := ParseMemberAttributes(r.Body); err != nil || m.Name != "m1" || len(m.ClientURLs) != 1 {
			t.Error(m, err)
		}
	}
}

func TestParseV2(t *testing.T) {
	raw := message(1, uint64(7), 2, []byte("PUT"), 3, []byte("/0/members/1/attributes"), 5, uint64(0))
	for _, data := range [][]byte{raw, message(1, uint64(7), 2, raw)} {
		if r, err := ParseRequest(data); err != nil || r.Kind != KindV2 {
			t.Error(r, err)
		}
	}
}

func TestParseDowngrade(t *testing.T) {
	d, err := ParseDowngrade(message(1, uint64(1), 2, []byte("3.6.0")))
	if err != nil || d != (Downgrade{TargetVersion: "3.6.0", Enabled: true}) {
		t.Error(d, err)
	}
}
