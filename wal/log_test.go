package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quire/disk"
)

// TestLargeRecords: records larger than a batch, a segment, and all buffers
// together, appended under the lock that the completion goroutine wants.
func TestLargeRecords(t *testing.T) {
	m := disk.NewMem(1)
	l, rec, err := Open(m, Options{SegmentBytes: 1 << 20, MaxBatchBytes: 64 << 10, MaxBufferBytes: 512 << 10}, nil)
	if err != nil || !rec.Fresh {
		t.Fatal(rec, err)
	}
	r := newRoom(l)
	rng := rand.New(rand.NewPCG(1, 2))
	var want [][]byte
	for _, n := range []int{64 << 20, 1, 0, capacity(64<<10) - headerBytes - frameBytes, capacity(64<<10) - headerBytes, 64 << 10, 3 << 20, 100} {
		p := make([]byte, n)
		for i := 0; i < n; i += 997 {
			p[i] = byte(rng.Uint32())
		}
		want = append(want, p)
		if pos, err := r.put(p); err != nil || int(pos) != len(want) {
			t.Fatal(pos, err)
		}
	}
	s := l.Stats()
	if s.BlockedCount == 0 || s.Durable != Pos(len(want)) || s.InFlight != 0 {
		t.Fatalf("%+v", s)
	}
	if _, err := l.AppendParts(make([]byte, maxRecordBytes/2+1), make([]byte, maxRecordBytes/2)); !errors.Is(err, ErrRecordTooLarge) {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-r.over
	i := 0
	if _, err = Replay(m, func(pos Pos, rec []byte) error {
		if !bytes.Equal(rec, want[i]) {
			return fmt.Errorf("record %d differs", pos)
		}
		i++
		return nil
	}); err != nil || i != len(want) {
		t.Fatal(i, err)
	}
}

// TestGate follows the fair-share gate step by step.
func TestGate(t *testing.T) {
	m := disk.NewMem(1)
	l, _, err := Open(m, Options{SegmentBytes: 1 << 20, MaxBatchBytes: 64 << 10, QueueDepth: 3, Manual: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	put := func(ops int, force bool, wantFlying int) {
		t.Helper()
		if _, err := l.Append([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if err := l.Submit(ops, force); err != nil {
			t.Fatal(err)
		}
		if got := l.Stats().InFlight; got != wantFlying {
			t.Fatalf("%d in flight, want %d", got, wantFlying)
		}
	}
	put(6, false, 1) // nothing in flight: at once
	put(2, false, 1) // 2·3 < 2+6
	put(1, false, 2) // 3·3 ≥ 3+6
	put(1, true, 3)  // forced
	put(9, true, 3)  // forced, but no slot: it waits
	if l.InFlight() != 4 {
		t.Fatal(l.InFlight())
	}
	put(1, false, 3)
	pos, err := l.Wait() // the gate is looked at again here
	for err == nil && pos < 6 {
		pos, err = l.Wait()
	}
	if err != nil || pos != 6 {
		t.Fatal(pos, err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRecycle: in a log that is trimmed as it goes the number of files stays
// bounded and no new file is filled.
func TestRecycle(t *testing.T) {
	m := disk.NewMem(1)
	opts := Options{SegmentBytes: 8 * blockBytes, MaxBatchBytes: blockBytes, Manual: true}
	l, _, err := Open(m, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	var last Pos
	for i := range 500 {
		if last, err = l.Append(make([]byte, 3000)); err != nil {
			t.Fatal(err)
		}
		if err := l.Submit(1, false); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Wait(); err != nil {
			t.Fatal(err)
		}
		if err := firstError(l.TrimBefore(last), l.Maintain()); err != nil {
			t.Fatal(err)
		}
		if i == 50 {
			m.InjectErr(disk.Fault{Kind: disk.OpLink, Nth: 1, Forever: true, Err: unix.ENOSPC})
		}
		if infos, _ := m.List(""); len(infos) > 4 {
			t.Fatal(infos)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	// A start with other sizes drops the spares that do not fit.
	m.ClearErrs()
	opts.SegmentBytes = 16 * blockBytes
	l, rec, err := Open(m, opts, nil)
	if err != nil || rec.LastPos != last || rec.FirstPos > last {
		t.Fatal(rec, err)
	}
	if err := firstError(l.Maintain(), l.Close()); err != nil {
		t.Fatal(err)
	}
	infos, _ := m.List("")
	for _, info := range infos {
		if strings.HasSuffix(info.Name, spareSuffix) {
			t.Fatal(infos)
		}
	}
}

// TestBackgroundFailure: an error in the background reaches a Wait that sleeps,
// and every later call.
func TestBackgroundFailure(t *testing.T) {
	m := disk.NewMem(1)
	l, _, err := Open(m, Options{SegmentBytes: 4 * blockBytes, MaxBatchBytes: blockBytes, SpareSegments: 2}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(l)
	m.InjectErr(disk.Fault{Kind: disk.OpRename, Nth: 1, Err: unix.EIO})
	for err == nil {
		_, err = r.put(make([]byte, 3000))
	}
	if !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
	<-r.over
	if !errors.Is(r.err, unix.EIO) {
		t.Fatal(r.err)
	}
	if err := l.Close(); !errors.Is(err, unix.EIO) {
		t.Fatal(err)
	}
}

// TestIdleMark: some time after the last write the log ends with a mark.
func TestIdleMark(t *testing.T) {
	m := disk.NewMem(1)
	l, _, err := Open(m, Options{SegmentBytes: 8 * blockBytes, MaxBatchBytes: blockBytes, IdleMark: time.Millisecond}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := newRoom(l)
	if _, err := r.put([]byte("x")); err != nil {
		t.Fatal(err)
	}
	before := l.Stats().Batches
	for l.Stats().Batches == before {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
	if n := l.Stats().Batches; n != before+1 {
		t.Fatalf("%d marks", n-before)
	}
	m2 := m.Clone(1) // damage to the record is now told from a torn write
	m2.FlipBit(segmentName(1), (2*blockBytes+headerBytes+frameBytes)*8)
	if _, err := Check(m2); !errors.Is(err, ErrCorrupt) {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	<-r.over
}

func TestOptions(t *testing.T) {
	_, _, err := Open(disk.NewMem(1), Options{SegmentBytes: 5000, MaxBatchBytes: 100, QueueDepth: 100}, nil)
	for _, word := range []string{"SegmentBytes", "MaxBatchBytes", "QueueDepth"} {
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Fatal(err)
		}
	}
	if _, _, err := Open(disk.NewMem(1), Options{MustExist: true}, nil); !errors.Is(err, ErrNoLog) {
		t.Fatal(err)
	}
	if got := (Options{}).withDefaults(); got.Validate() != nil || got.SegmentBytes != 64<<20 || got.MaxBatchBytes != 1<<20 || got.QueueDepth != 3 {
		t.Fatalf("%+v", got)
	}
}

// TestReplayError: Open gives an error of replay back as it is.
func TestReplayError(t *testing.T) {
	m, _ := smallLog(t, true)
	stop := errors.New("stop")
	_, _, err := Open(m, Options{}, func(pos Pos, _ []byte) error {
		if pos == 3 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) {
		t.Fatal(err)
	}
}
