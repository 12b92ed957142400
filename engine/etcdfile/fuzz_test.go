package etcdfile

import (
	"bytes"
	"errors"
	"os"
	"testing"
)

// readAll reads everything in a database.
func readAll(b []byte) error {
	f, err := Read(bytes.NewReader(b), "fuzz", int64(len(b)))
	if err != nil {
		return err
	}
	if _, err := f.State(); err != nil {
		return err
	}
	_, err = f.HashKV()
	return err
}

// checkRefusal accepts no other errors than those that say what is wrong.
func checkRefusal(t *testing.T, err error) {
	var corrupt *CorruptError
	var version *VersionError
	if err != nil && !errors.As(err, &corrupt) && !errors.As(err, &version) {
		t.Errorf("unexpected kind of error: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	snap := unzip(f, "saved.snap.gz")
	f.Add(snap[:len(snap)-SumBytes])
	f.Add(unzip(f, "killed.db.gz"))
	for _, n := range []int{0, 3, 400} {
		b, err := os.ReadFile(write(f, sample(), history(uint64(n), n)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkRefusal(t, readAll(b)) })
}

func FuzzLog(f *testing.F) {
	f.Add(unzip(f, "killed.wal.gz"), uint64(30))
	f.Fuzz(func(t *testing.T, b []byte, after uint64) {
		l := &logReader{after: after, log: new(Log), last: true, name: "fuzz"}
		if err := l.records(b); err != nil {
			checkRefusal(t, err)
			return
		}
		for _, e := range l.log.Entries {
			_, _ = ParseConfChange(e.Data)
			r, err := ParseRequest(e.Data)
			if err != nil {
				continue
			}
			_, _ = ParseClusterVersion(r.Body)
			_, _ = ParseMemberAttributes(r.Body)
			_, _ = ParseDowngrade(r.Body)
		}
	})
}

// TestDamage flips bits of a database one after the other: it is refused or
// read, and neither ends the process.
func TestDamage(t *testing.T) {
	snap := unzip(t, "saved.snap.gz")
	whole := snap[:len(snap)-SumBytes]
	step := 7 // prime: each bit of a byte comes up
	if testing.Short() {
		step = 101
	}
	refused := 0
	for bit := 0; bit < len(whole)*8; bit += step {
		b := bytes.Clone(whole)
		b[bit/8] ^= 1 << (bit % 8)
		err := readAll(b)
		checkRefusal(t, err)
		if err != nil {
			refused++
		}
	}
	for n := 0; n < len(whole); n += 511 {
		if err := readAll(whole[:n]); err == nil {
			t.Errorf("a file cut to %d of %d bytes is read", n, len(whole))
		}
	}
	if refused == 0 {
		t.Error("no damage is noticed")
	}
	t.Logf("%d of %d flips refused", refused, len(whole)*8/step)
}
