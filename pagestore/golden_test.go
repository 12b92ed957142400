package pagestore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"quire/disk"

	"github.com/cespare/xxhash/v2"
)

var update = flag.Bool("update", false, "write the golden files of the present format")

const goldenDir = "testdata/v1"

// TestGolden compares the files of a fixed workload with those in testdata, byte
// by byte, and opens the latter. A difference is a change of the format: it needs
// a new version and a new folder, beside the old one.
func TestGolden(t *testing.T) {
	p := newSample(t)
	names, err := filepath.Glob(goldenDir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		writeGolden(t, p, names)
		return
	}
	m := disk.NewMem(1)
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(name)
		if base == "dump.txt" {
			continue
		}
		m.WriteFile(base, b)
		if now, err := p.m.ReadFile(base); err != nil || !bytes.Equal(now, b) {
			t.Errorf("%s differs from what this build writes: %v", base, err)
		}
	}
	if want := len(p.files()) + 1; len(names) != want {
		t.Errorf("%d golden files, want %d", len(names), want)
	}
	var dump bytes.Buffer
	if err := Dump(m, &dump); err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(goldenDir + "/dump.txt"); err != nil || !bytes.Equal(want, dump.Bytes()) {
		t.Errorf("the dump differs: %v\n%s", err, dump.Bytes())
	}
	if refusal, wrong := p.verdict(m); refusal != nil || wrong != nil {
		t.Fatalf("golden store: %v, %v", refusal, wrong)
	}
}

func writeGolden(t *testing.T, p *sample, old []string) {
	for _, name := range old {
		os.Remove(name)
	}
	if err := os.MkdirAll(goldenDir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name := range p.files() {
		b, _ := p.m.ReadFile(name)
		if err := os.WriteFile(filepath.Join(goldenDir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var dump bytes.Buffer
	if err := Dump(p.m, &dump); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(goldenDir+"/dump.txt", dump.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// reversion sets the version of the structure at off and makes its checksum fit.
func reversion(m *disk.Mem, name string, off, length int64, version uint16) {
	edit(m, name, func(b []byte) []byte {
		s := b[off : off+length]
		binary.LittleEndian.PutUint16(s[12:], version)
		binary.LittleEndian.PutUint64(s, xxhash.Sum64(s[8:]))
		return b
	})
}

// TestOtherVersion refuses every structure of another version by name, even when
// all else of it is sound.
func TestOtherVersion(t *testing.T) {
	p := newSample(t)
	for name := range p.files() {
		m := p.m.Clone(1)
		b, err := m.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		length := int64(stateHeadBytes)
		switch _, isPages := parseSegmentName(name); {
		case isPages:
			length = int64(binary.LittleEndian.Uint32(b[40:]))
		case name == slotNames[0] || name == slotNames[1]:
			length = int64(binary.LittleEndian.Uint32(b[32:]))
		}
		reversion(m, name, 0, length, 2)
		refusal, wrong := p.verdict(m)
		var v *VersionError
		if wrong != nil || !errors.As(refusal, &v) || v.File != name || v.Version != 2 || v.Reads != 1 {
			t.Errorf("%s of version 2: %v, %v", name, refusal, wrong)
		}
	}
}
