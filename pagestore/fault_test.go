package pagestore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"quire/disk"
)

// TestDiskErrors makes the n-th operation of a random workload fail, for all n,
// once or from then on, in each way that a disk may fail. Nothing committed may
// be lost, nothing wrong may be read, and what failed must say so.
func TestDiskErrors(t *testing.T) {
	kinds := []error{syscall.EIO, syscall.ENOSPC, io.ErrShortWrite, syscall.EROFS}
	var points atomic.Int64
	defer func() { t.Logf("%d failing operations", points.Load()) }()
	eachSeed(t, 100, func(seed uint64) error {
		for n := 1; n < 1000; n++ {
			for i, kind := range kinds {
				f := disk.Fault{Kind: disk.OpAny, Nth: n, Forever: (n+i+int(seed))%2 == 0, Err: kind}
				reached, err := withFault(seed, f)
				if err != nil {
					return fmt.Errorf("%+v: %w", f, err)
				}
				if !reached {
					return nil
				}
				points.Add(1)
			}
		}
		return nil
	})
}

// withFault runs a workload on a failing disk, and then recovers what a restart
// and what a power cut find.
func withFault(seed uint64, f disk.Fault) (reached bool, err error) {
	m := disk.NewMem(seed)
	w := newWorld(seed, m)
	var fatal, told error
	w.opts.OnFatal = func(err error) { fatal = err }
	w.opts.OnNoSpace = func(err error) { told = err }
	m.InjectErr(f)
	failures := 0
	err = w.start()
	for i := 0; i < 12 && w.s != nil && !errors.Is(err, f.Err); i++ {
		err = w.workStep(i)
		if errors.Is(err, ErrNoSpace) && isENOSPC(f.Err) {
			failures++
			err = w.readAll()
		}
	}
	before := m.Ops()
	if w.s != nil {
		if err == nil && failures == 0 && before < f.Nth {
			return false, nil
		}
		if fatal != nil && !errors.Is(fatal, f.Err) {
			return true, fmt.Errorf("OnFatal got %w", fatal)
		}
		if isENOSPC(f.Err) && f.Forever && failures > 0 && told == nil {
			return true, errors.New("disk full, and OnNoSpace was not told")
		}
		if err := w.readAll(); err != nil {
			return true, fmt.Errorf("after the fault: %w", err)
		}
	}
	if err != nil && !errors.Is(err, f.Err) {
		return true, err
	}
	m.ClearErrs()
	cut := m.Crash(disk.CrashChoice{Seed: seed, Strict: seed%2 == 0})
	if _, _, _, err := recovered(cut, w.opts, w.possible, w.size); err != nil {
		return true, fmt.Errorf("after a power cut: %w", err)
	}
	if isENOSPC(f.Err) && fatal == nil && w.s != nil {
		if err := w.commit(); err != nil {
			return true, fmt.Errorf("commit with space again: %w", err)
		}
		if err := w.s.NoSpace(); err != nil {
			return true, fmt.Errorf("with space again: %w", err)
		}
	}
	if _, _, _, err := recovered(m, w.opts, w.possible, w.size); err != nil {
		return true, fmt.Errorf("after a restart: %w", err)
	}
	return true, nil
}

// workStep makes the steps that write come in a fixed order.
func (w *world) workStep(i int) error {
	switch i % 4 {
	case 0, 1:
		return w.append()
	case 2:
		w.kill()
		return w.commit()
	default:
		w.s.Roll()
		return w.reclaim()
	}
}

func (w *world) readAll() error {
	for id, ref := range w.place {
		if err := readRight(w.s, ref, id, w.size[id]); err != nil {
			return err
		}
	}
	return nil
}

// TestNoSpaceGoesOn fills the disk under a store with its goroutine: appends go
// on in memory up to the bound, everything stays readable, and with space again
// it continues by itself.
func TestNoSpaceGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := disk.NewMem(1)
		opts := testOptions()
		opts.Inline = false
		told := make(chan error, 10)
		opts.OnNoSpace = func(err error) { told <- err }
		opts.OnFatal = func(err error) { t.Errorf("fatal: %v", err) }
		s, _ := mustOpen(t, m, opts)
		defer s.Close()
		m.InjectErr(disk.Fault{Kind: disk.OpWrite, Prefix: "0", Nth: 1, Forever: true, Err: syscall.ENOSPC})
		refs, bytesIn := []Ref{}, int64(0)
		for i := 0; ; i++ {
			ref, err := s.Append(testRecord(uint64(i), 500))
			if errors.Is(err, ErrNoSpace) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			refs, bytesIn = append(refs, ref), bytesIn+500
			synctest.Wait()
		}
		if err := <-told; !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("told %v", err)
		}
		if bound := opts.DirtyBytes + opts.NoSpaceBytes; bytesIn < bound*8/10 || bytesIn > bound*12/10 {
			t.Fatalf("took %d bytes in with a bound of %d", bytesIn, bound)
		}
		c, err := s.Cut([]byte("full"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Commit(); !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("commit on a full disk: %v", err)
		}
		for i, ref := range refs {
			if got, err := s.Read(ref); err != nil || !bytes.Equal(got, testRecord(uint64(i), 500)) {
				t.Fatalf("read %v: %v", ref, err)
			}
		}
		m.ClearErrs()
		time.Sleep(noSpaceRetry + time.Millisecond)
		synctest.Wait()
		if err := <-told; err != nil || s.NoSpace() != nil {
			t.Fatalf("with space again: told %v, state %v", err, s.NoSpace())
		}
		mustCommit(t, s, "again", "")
		if _, err := s.Append(testRecord(1, 1)); err != nil {
			t.Fatal(err)
		}
	})
}

// gate is an FS whose writes of pages wait for a token.
type gate struct {
	disk.FS
	pass chan bool
}

type gateFile struct {
	disk.File
	pass chan bool
}

func (g gate) Create(name string, size int64) (disk.File, error) {
	f, err := g.FS.Create(name, size)
	if _, isPages := parseSegmentName(name); !isPages {
		return f, err
	}
	return gateFile{f, g.pass}, err
}

func (f gateFile) WriteAt(p []byte, off int64) error {
	<-f.pass
	return f.File.WriteAt(p, off)
}

// TestAppendWaits holds the disk and sees Append wait at the bound, and go on.
func TestAppendWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := gate{disk.NewMem(1), make(chan bool)}
		opts := testOptions()
		opts.Inline = false
		s, _ := mustOpen(t, g, opts)
		appended := 0
		go func() {
			for ; appended < 1000; appended++ {
				if _, err := s.Append(testRecord(1, 500)); err != nil {
					t.Error(err)
				}
			}
		}()
		synctest.Wait()
		if held := int64(appended) * 500; held < opts.DirtyBytes*7/10 || held > opts.DirtyBytes*14/10 {
			t.Fatalf("waits with %d bytes, bound %d", held, opts.DirtyBytes)
		}
		if st := s.Stats(); st.DirtyBytes > opts.DirtyBytes+int64(opts.PageBytes) {
			t.Fatalf("%d dirty bytes", st.DirtyBytes)
		}
		time.Sleep(time.Second)
		close(g.pass)
		synctest.Wait()
		if appended != 1000 {
			t.Fatalf("stuck at %d", appended)
		}
		if stall := s.Stats().AppendStall; stall < time.Second {
			t.Fatalf("stall %v", stall)
		}
		s.Close()
	})
}

// TestReadErrorPasses: a read that failed says so, and may succeed later.
func TestReadErrorPasses(t *testing.T) {
	m := disk.NewMem(1)
	s, _ := mustOpen(t, m, testOptions())
	ref, err := s.Append(testRecord(7, 100))
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, s, "1", "")
	s, _ = mustOpen(t, m, testOptions())
	m.InjectErr(disk.Fault{Kind: disk.OpRead, Nth: 1, Err: syscall.EIO})
	var de *disk.Error
	if _, err := s.Read(ref); !errors.As(err, &de) || de.Name != segmentName(ref.segment()) {
		t.Fatalf("read on a failing disk: %v", err)
	}
	if got, err := s.Read(ref); err != nil || !bytes.Equal(got, testRecord(7, 100)) {
		t.Fatalf("second read: %v", err)
	}
}
