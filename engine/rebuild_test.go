package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"quire/disk"
)

// rebuildFrom replaces the store on fs by the leader's newest checkpoint.
func rebuildFrom(t *testing.T, lead *rig, fs *disk.Mem, atLeast uint64, fault func() error) (*Remains, error) {
	t.Helper()
	r, err := LookInto(fs)
	if err != nil {
		return nil, err
	}
	if err := MarkDamaged(fs); err != nil {
		return r, err
	}
	index, term, _ := offered(t, lead, max(atLeast, r.Applied))
	s := lead.e.Transfers()
	manifest, err := s.Manifest(index, term)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release(index, term)
	return r, r.Rebuild(context.Background(), fs, manifest, func(blob uint32, p []byte, off int64) (int, error) {
		if fault != nil {
			if err := fault(); err != nil {
				return 0, err
			}
		}
		return s.ReadAt(index, term, blob, p, off)
	})
}

// TestRebuild flips bits in a store at rest. Whatever is damaged, the member either
// cannot tell whose store it is, or has the leader's state after a rebuild, at any
// crash in between too, and goes on with the log.
func TestRebuild(t *testing.T) {
	unknown, rebuilt := 0, 0
	for seed := uint64(1); seed <= 30; seed++ {
		rnd := rand.New(rand.NewPCG(seed, 20))
		lead, to := twoRigs(t, seed)
		prints := map[uint64]string{}
		m := newModel()
		for range 60 {
			step(t, rnd, lead, m)
			prints[lead.index] = fingerprint(t, lead.e)
		}
		to.follow(lead, 40)
		if err := errors.Join(to.e.Checkpoint(), to.e.Abandon()); err != nil {
			t.Fatal(err)
		}
		applied := to.index
		infos, _ := to.fs.List("")
		f := infos[rnd.IntN(len(infos))]
		for range 1 + rnd.IntN(20) {
			if f.SizeBytes > 0 {
				to.fs.FlipBit(f.Name, rnd.Int64N(f.SizeBytes*8))
			}
		}
		broken := 0
		r, err := rebuildFrom(t, lead, to.fs, applied, func() error {
			if broken++; broken == 2 {
				return errLine
			}
			return nil
		})
		if r == nil {
			unknown++
			continue
		}
		if r.MemberID != to.id || r.ClusterID != lead.e.ClusterID() || r.Applied != applied || len(r.Members) != 2 {
			t.Fatalf("seed %d: %+v", seed, r)
		}
		if err != nil { // the line broke
			if marked, e := IsMarkedDamaged(to.fs); !errors.Is(err, errLine) || !marked || e != nil {
				t.Fatalf("seed %d: %v, marked %v, %v", seed, err, marked, e)
			}
			to.fs = to.fs.Crash(disk.CrashChoice{Seed: rnd.Uint64(), Fate: disk.Fate(rnd.IntN(4)), Strict: rnd.IntN(2) == 0})
			if _, err = rebuildFrom(t, lead, to.fs, applied, nil); err != nil {
				t.Fatalf("seed %d, again: %v", seed, err)
			}
		}
		rebuilt++
		if to.e, err = Open(to.fs, to.options()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if to.index = to.e.AppliedIndex(); fingerprint(t, to.e) != prints[to.index] {
			t.Fatalf("seed %d: another state at %d", seed, to.index)
		}
		to.follow(lead, 1000)
		if fingerprint(t, to.e) != prints[lead.index] {
			t.Fatalf("seed %d: goes on to another state", seed)
		}
		if marked, err := IsMarkedDamaged(to.fs); !marked || err != nil {
			t.Fatalf("seed %d: the mark has gone: %v", seed, err)
		}
		if err := UnmarkDamaged(to.fs); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d rebuilt, %d with nothing to tell whose they are", rebuilt, unknown)
	if rebuilt < 10 {
		t.Error("too few")
	}
}

// TestDamageIsTold: damage that is found in use is told, with the error; in a store
// that is being opened it is an error of that alone.
func TestDamageIsTold(t *testing.T) {
	lead, _ := twoRigs(t, 1)
	rnd, m := rand.New(rand.NewPCG(1, 21)), newModel()
	for range 60 {
		step(t, rnd, lead, m)
	}
	if err := errors.Join(lead.e.Checkpoint(), lead.e.Abandon()); err != nil {
		t.Fatal(err)
	}
	infos, _ := lead.fs.List("")
	opts := lead.options()
	var told error
	opts.OnDamage = func(err error) { told = err }
	e, err := Open(lead.fs, opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range infos {
		if f.SizeBytes > 4096 {
			lead.fs.FlipBit(f.Name, 200*8)
		}
	}
	if told != nil {
		t.Fatal(told)
	}
	if _, err := e.keys().store.Scrub(1 << 30); !IsDamage(err) || !IsDamage(told) {
		t.Errorf("found %v, told %v", err, told)
	}
	if err := e.Abandon(); err != nil {
		t.Fatal(err)
	}
}
