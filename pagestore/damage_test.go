package pagestore

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"quire/disk"
)

var everyBit = flag.Bool("everybit", false, "flip every bit of the damaged store, not one of each byte")

// sample is a small store at rest with all there is in one: sealed segments with
// footers, one without, a jumbo record, copies made by Reclaim, a state file.
type sample struct {
	m     *disk.Mem
	opts  Options
	meta  string
	state string
	recs  map[uint64]sampleRec // by number, all that the pages hold
	older []*disk.Mem          // the disk at earlier checkpoints
}

type sampleRec struct {
	ref Ref
	n   int
}

func newSample(t testing.TB) *sample {
	t.Helper()
	p := &sample{m: disk.NewMem(3), opts: testOptions(), recs: map[uint64]sampleRec{}}
	p.opts.SegmentBytes, p.opts.PageBytes, p.opts.CacheBytes = 16<<10, 4<<10, 0
	p.opts.inlineState = 16
	s, _ := mustOpen(t, p.m, p.opts)
	owner := &mapOwner{places: map[uint64]Ref{}}
	id := uint64(0)
	put := func(n int) {
		ref, err := s.Append(worldRecord(id, n))
		if err != nil {
			t.Fatal(err)
		}
		owner.places[id] = ref
		p.recs[id] = sampleRec{n: n}
		id++
	}
	for range 40 {
		put(200)
	}
	mustCommit(t, s, "first", "old state")
	p.older = append(p.older, p.m.Clone(1))
	for i := range id {
		if i%3 != 0 {
			s.Free(owner.places[i])
			delete(owner.places, i)
		}
	}
	put(5000)
	for range 30 {
		put(300)
	}
	s.Roll()
	mustCommit(t, s, "second", "newer state")
	p.older = append(p.older, p.m.Clone(1))
	if n, err := s.Reclaim(context.Background(), Budget{Below: 0.6}, owner); err != nil || n <= 0 {
		t.Fatalf("reclaimed %d, %v", n, err)
	}
	for range 5 {
		put(100)
	}
	p.meta, p.state = "third", "the state of the third"
	mustCommit(t, s, p.meta, p.state)
	s.Close()
	s, _ = mustOpen(t, p.m, p.opts)
	found := map[uint64]sampleRec{}
	if err := s.Hints(1, func(_ int, ref Ref, n int, hint []byte) error {
		found[hintKey(hint)] = sampleRec{ref, n}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	p.recs = found
	mustCommit(t, s, p.meta, p.state)
	s.Close()
	return p
}

// verdict opens a damaged copy and reads all of it. It returns nil if everything
// was right, the named refusal if there was one, and panics the test otherwise.
func (p *sample) verdict(m *disk.Mem) (refusal error, wrong error) {
	s, c, err := Open(m, p.opts)
	if err != nil {
		return err, named(err)
	}
	if c == nil || string(c.Meta) != p.meta || string(c.State) != p.state {
		return nil, fmt.Errorf("another checkpoint: %+v", c)
	}
	seen := 0
	err = s.Hints(1, func(_ int, ref Ref, n int, hint []byte) error {
		seen++
		if len(hint) < 8 || p.recs[hintKey(hint)] != (sampleRec{ref, n}) {
			return fmt.Errorf("wrong hint: %v, %d bytes, %x", ref, n, hint)
		}
		return nil
	})
	if err != nil {
		refusal = err
		wrong = named(err)
	} else if seen != len(p.recs) {
		return nil, fmt.Errorf("%d hints of %d", seen, len(p.recs))
	}
	for id, rec := range p.recs {
		err := readRight(s, rec.ref, id, rec.n)
		if err == nil {
			continue
		}
		refusal = err
		if err := named(err); err != nil {
			wrong = err
		}
	}
	return refusal, wrong
}

// named returns nil if err says what is damaged and where.
func named(err error) error {
	var c *CorruptError
	var v *VersionError
	if errors.As(err, &c) && c.File != "" || errors.As(err, &v) && v.File != "" {
		return nil
	}
	return fmt.Errorf("not a named refusal: %w", err)
}

func (p *sample) files() map[string]int64 {
	infos, err := p.m.List("")
	if err != nil {
		panic(err)
	}
	files := map[string]int64{}
	for _, f := range infos {
		files[f.Name] = f.SizeBytes
	}
	return files
}

// damages runs fn for each case in parallel and counts refusals.
func (p *sample) damages(t *testing.T, cases []func(m *disk.Mem) string) {
	var mu sync.Mutex
	refused := 0
	var group sync.WaitGroup
	for w := range 4 {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := w; i < len(cases); i += 4 {
				m := p.m.Clone(uint64(i))
				what := cases[i](m)
				refusal, wrong := p.verdict(m)
				mu.Lock()
				if refusal != nil {
					refused++
				}
				if wrong != nil {
					t.Errorf("%s: %v", what, wrong)
				}
				mu.Unlock()
			}
		}()
	}
	group.Wait()
	t.Logf("%d cases, %d refused, the others right", len(cases), refused)
}

func TestBitFlips(t *testing.T) {
	p := newSample(t)
	rng := rand.New(rand.NewPCG(5, 5))
	var cases []func(*disk.Mem) string
	for name, size := range p.files() {
		for i := range size {
			for bit := range int64(8) {
				if !*everyBit && int64(rng.IntN(8)) != bit {
					continue
				}
				cases = append(cases, func(m *disk.Mem) string {
					m.FlipBit(name, i*8+bit)
					return fmt.Sprintf("bit %d of byte %d of %s flipped", bit, i, name)
				})
			}
		}
	}
	p.damages(t, cases)
}

// TestBothSlots damages both copies of the manifest at once.
func TestBothSlots(t *testing.T) {
	p := newSample(t)
	rng := rand.New(rand.NewPCG(6, 6))
	for range 300 {
		m := p.m.Clone(1)
		for _, name := range slotNames {
			m.FlipBit(name, rng.Int64N(manifestHeadBytes*8))
		}
		if _, _, err := Open(m, p.opts); err == nil || named(err) != nil {
			t.Fatalf("both slots damaged: %v", err)
		}
	}
}

func edit(m *disk.Mem, name string, fn func(b []byte) []byte) {
	b, err := m.ReadFile(name)
	if err != nil {
		panic(err)
	}
	m.WriteFile(name, fn(b))
}

// TestMisdirected swaps every two units of the store, and copies every unit over
// every other.
func TestMisdirected(t *testing.T) {
	p := newSample(t)
	type unit struct {
		name string
		off  int64
	}
	var units []unit
	for name, size := range p.files() {
		for off := int64(0); off+unitBytes <= size; off += unitBytes {
			units = append(units, unit{name, off})
		}
	}
	read := func(m *disk.Mem, u unit) []byte {
		b, _ := m.ReadFile(u.name)
		return append([]byte(nil), b[u.off:u.off+unitBytes]...)
	}
	write := func(m *disk.Mem, u unit, p []byte) {
		edit(m, u.name, func(b []byte) []byte { copy(b[u.off:], p); return b })
	}
	var cases []func(*disk.Mem) string
	for _, a := range units {
		for _, b := range units {
			if a == b {
				continue
			}
			cases = append(cases, func(m *disk.Mem) string {
				pa, pb := read(m, a), read(m, b)
				if a.name < b.name || a.name == b.name && a.off < b.off {
					write(m, a, pb)
				}
				write(m, b, pa)
				return fmt.Sprintf("%v and %v exchanged or copied", a, b)
			})
		}
	}
	p.damages(t, cases)
}

// TestStaleUnits puts every unit back to what it was at an older checkpoint, as
// a disk does that lost a write.
func TestStaleUnits(t *testing.T) {
	p := newSample(t)
	var cases []func(*disk.Mem) string
	for i, old := range p.older {
		for name, size := range p.files() {
			was, err := old.ReadFile(name)
			if err != nil {
				was = nil
			}
			was = append(was, make([]byte, max(0, size-int64(len(was))))...)
			for off := int64(0); off < size; off += 512 {
				for _, n := range []int64{512, unitBytes} {
					cases = append(cases, func(m *disk.Mem) string {
						edit(m, name, func(b []byte) []byte { copy(b[off:min(off+n, size)], was[off:]); return b })
						return fmt.Sprintf("%d bytes of %s at %d as at checkpoint %d", n, name, off, i)
					})
				}
			}
		}
	}
	p.damages(t, cases)
}

// TestTruncations cuts every file at many lengths, removes it, and puts every
// file in the place of every other.
func TestTruncations(t *testing.T) {
	p := newSample(t)
	var cases []func(*disk.Mem) string
	files := p.files()
	for name, size := range files {
		for n := int64(0); n < size; n += 128 {
			for _, n := range []int64{n, n + 1, n + 127} {
				cases = append(cases, func(m *disk.Mem) string {
					edit(m, name, func(b []byte) []byte { return b[:min(n, size)] })
					return fmt.Sprintf("%s cut to %d", name, n)
				})
			}
		}
		cases = append(cases, func(m *disk.Mem) string {
			m.Remove(name)
			return name + " removed"
		})
		for other := range files {
			cases = append(cases, func(m *disk.Mem) string {
				b, _ := m.ReadFile(other)
				m.WriteFile(name, b)
				return other + " in the place of " + name
			})
		}
	}
	p.damages(t, cases)
}

// TestCheckFindsDamage flips bits of pages, footers and state, each of which
// Check must name, and which Scrub must find where it looks.
func TestCheckFindsDamage(t *testing.T) {
	p := newSample(t)
	if err := Check(p.m.Clone(1)); err != nil {
		t.Fatalf("a sound store: %v", err)
	}
	rng := rand.New(rand.NewPCG(9, 9))
	for name, size := range p.files() {
		for range 50 {
			m := p.m.Clone(1)
			bit := rng.Int64N(size * 8)
			m.FlipBit(name, bit)
			r := Inspect(m)
			isSlot := name == slotNames[0] || name == slotNames[1]
			if isSlot && (len(r.Problems) > 0 || len(r.Notes) == 0 && bit/8 < manifestHeadBytes) {
				t.Fatalf("%s, bit %d: %v, notes %v", name, bit, r.Problems, r.Notes)
			}
			if !isSlot && r.Err() == nil {
				t.Fatalf("%s, bit %d: not found", name, bit)
			}
			var c *CorruptError
			if !isSlot && (!errors.As(r.Err(), &c) || c.File != name || c.Off > bit/8) {
				t.Fatalf("%s, bit %d: found %v", name, bit, r.Err())
			}
			if _, isPages := parseSegmentName(name); isPages {
				p.scrubFinds(t, m, name)
			}
		}
	}
}

func (p *sample) scrubFinds(t *testing.T, m *disk.Mem, name string) {
	t.Helper()
	s, _ := mustOpen(t, m, p.opts)
	found := 0
	for range 1000 {
		done, err := s.Scrub(5000)
		var c *CorruptError
		if errors.As(err, &c) && c.File == name {
			found++
		} else if err != nil {
			t.Fatal(err)
		}
		if done.Wrapped {
			break
		}
	}
	if found != 1 {
		t.Fatalf("scrub found the damage of %s %d times", name, found)
	}
}
