package wal

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"quire/disk"
)

// faultRun works on a log whose disk fails, until it is done or the log gives up.
// It returns the model of what was promised.
func faultRun(s *sim, m *disk.Mem) (*model, error) {
	mod := &model{}
	l, err := s.reopen(m, mod)
	if err != nil {
		return mod, err
	}
	for range 40 {
		if l, err = s.step(m, l, mod); err != nil {
			if l != nil {
				_ = l.Close()
			}
			return mod, err
		}
	}
	return mod, l.Close()
}

func newFaultSim(seed uint64) *sim {
	return &sim{rng: rand.New(rand.NewPCG(seed, 1)), opts: Options{
		SegmentBytes: 5 * blockBytes, MaxBatchBytes: 2 * blockBytes, LogID: 9, Manual: true, QueueDepth: 3,
	}}
}

// TestFaults makes every operation fail, once and for ever, in each way. The log
// must go on or stop with the disk's error, and whatever was acknowledged must
// be there afterwards: for another process, and after a power cut too.
func TestFaults(t *testing.T) {
	seeds := uint64(6)
	if testing.Short() {
		seeds = 1
	}
	cases := 0
	outcomes := map[string]int{}
	for seed := range seeds {
		for _, kind := range []disk.OpKind{disk.OpAny, disk.OpComplete, disk.OpSync, disk.OpSyncDir} {
			for _, errno := range []error{unix.EIO, unix.ENOSPC, io.ErrShortWrite} {
				for _, forever := range []bool{false, true} {
					for nth := 1; ; nth++ {
						fault := disk.Fault{Kind: kind, Nth: nth, Forever: forever, Err: errno}
						hit, err := oneFault(seed, fault)
						if err != nil && !hit {
							t.Fatalf("seed %d, %v: %v", seed, fault, err)
						}
						if err != nil {
							outcomes["stopped"]++
						} else if hit {
							outcomes["went on"]++
						}
						cases++
						if !hit || t.Failed() {
							break
						}
					}
				}
			}
		}
	}
	t.Logf("%d faults: %v", cases, outcomes)
}

// oneFault reports whether the fault was reached, and the error that stopped
// the log; with hit false the error is the test's.
func oneFault(seed uint64, fault disk.Fault) (hit bool, err error) {
	s := newFaultSim(seed)
	m := disk.NewMem(seed)
	m.InjectErr(fault)
	mod, err := faultRun(s, m)
	hit = err != nil || m.Faulted() > 0
	if err != nil {
		var de *disk.Error
		if !errors.Is(err, fault.Err) || !errors.As(err, &de) {
			return false, fmt.Errorf("not the disk's error: %w", err)
		}
	}
	m.ClearErrs()
	for i, c := range []disk.CrashChoice{
		{Process: true, Seed: seed}, {Fate: disk.DropAll}, {Fate: disk.KeepAll}, {Seed: seed, Strict: true},
	} {
		image := m.Crash(c)
		if c.Process { // what another process found must survive a power cut as well
			after := mod.clone()
			l, e := s.reopen(image, after)
			if e == nil {
				e = l.Close()
			}
			if e != nil {
				return false, fmt.Errorf("%+v: %w", c, e)
			}
			mod = after
			image = image.Crash(disk.CrashChoice{Fate: disk.DropAll})
			m = image
		}
		rec, records, e := readAll(image)
		if e == nil {
			e = mod.check(rec, records)
		}
		if e != nil {
			return false, fmt.Errorf("image %d %+v after %v: %w", i, c, err, e)
		}
	}
	return hit, err
}

// TestWriteError: the final error tells file, offset and errno, and stays.
func TestWriteError(t *testing.T) {
	m := disk.NewMem(1)
	l, _, err := Open(m, Options{SegmentBytes: 5 * blockBytes, MaxBatchBytes: blockBytes, Manual: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.InjectErr(disk.Fault{Kind: disk.OpComplete, Nth: 1, Err: unix.EIO})
	if _, err := l.Append([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := l.Submit(1, false); err != nil {
		t.Fatal(err)
	}
	pos, err := l.Wait()
	var we *WriteError
	if pos != 0 || !errors.As(err, &we) || we.File != segmentName(1) || we.Off != 2*blockBytes || we.Seq != 2 || !errors.Is(err, unix.EIO) {
		t.Fatalf("%d, %v", pos, err)
	}
	if _, err2 := l.Append([]byte("y")); err2 != err {
		t.Fatal(err2)
	}
	if err2 := l.Submit(1, true); err2 != err {
		t.Fatal(err2)
	}
	if _, err2 := l.Wait(); err2 != err {
		t.Fatal(err2)
	}
	if err2 := l.Close(); err2 != err {
		t.Fatal(err2)
	}
}

// TestDiskFull: the log tells that no segment can be made, lives on in what it
// has, recovers when there is room again, and stops only when a batch needs the
// segment.
func TestDiskFull(t *testing.T) {
	for _, room := range []bool{true, false} {
		m := disk.NewMem(1)
		l, _, err := Open(m, Options{SegmentBytes: 6 * blockBytes, MaxBatchBytes: blockBytes, Manual: true}, nil)
		if err != nil {
			t.Fatal(err)
		}
		put := func() error {
			if _, err := l.Append(make([]byte, 3000)); err != nil {
				return err
			}
			if err := l.Submit(1, true); err != nil {
				return err
			}
			_, err := l.Wait()
			return err
		}
		m.InjectErr(disk.Fault{Kind: disk.OpLink, Nth: 1, Forever: true, Err: unix.ENOSPC})
		if err := l.Maintain(); !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		if s := l.Stats(); !errors.Is(s.FillErr, unix.ENOSPC) || s.AheadBytes != 4*blockBytes {
			t.Fatalf("%+v", s)
		}
		for range 4 {
			if err := put(); err != nil {
				t.Fatal(err)
			}
		}
		if room {
			m.ClearErrs()
		}
		err = put()
		if room != (err == nil) || !room && !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		if err := l.Close(); room != (err == nil) {
			t.Fatal(err)
		}
		m.ClearErrs()
		rec, err := Check(m)
		if err != nil || rec.LastPos < 4 {
			t.Fatal(rec, err)
		}
	}
}
