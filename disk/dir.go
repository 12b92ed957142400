package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	lockName = "LOCK"
	filePerm = 0o600
	dirPerm  = 0o700
	// fillChunk is the size of one write of the zero fill: large enough for
	// the full bandwidth of a disk, small enough that a durable write of the
	// log does not queue long behind it.
	fillChunk = 1 << 20
)

// Options of OpenDir. The zero value is what a server wants.
type Options struct {
	// NoSync leaves every fsync and O_DSYNC out: a power cut may lose or
	// damage everything. For tests and etcd's --unsafe-no-fsync.
	NoSync bool
	// ReadOnly makes no directory and no file and locks shared, so that
	// several inspecting tools may run, but none beside a server.
	ReadOnly bool
	// NoUring chooses pwrite even where io_uring could be used.
	NoUring bool
}

// Dir is an FS on a real directory, locked for this process.
type Dir struct {
	root string
	opts Options
	lock *os.File // nil when ReadOnly and never locked

	mu     sync.Mutex
	engine string // of the last NewQueue, or what NewQueue would choose
	reason string
}

// OpenDir opens the directory, makes it (0700) with its parents if it is not
// there, and locks it. A *LockedError, which unwraps to ErrLocked, names the
// process that has it.
func OpenDir(root string, opts Options) (*Dir, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, wrap("open", root, 0, err)
	}
	d := &Dir{root: root, opts: opts}
	if !opts.ReadOnly {
		if err := d.makeDir(root); err != nil {
			return nil, wrap("mkdir", root, 0, err)
		}
	}
	if err := d.takeLock(); err != nil {
		return nil, wrap("lock", root, 0, err)
	}
	if err := d.syncTree(); err != nil {
		_ = d.Close()
		return nil, wrap("open", root, 0, err)
	}
	d.engine, d.reason = probeEngine(opts)
	return d, nil
}

// Close gives the lock back. Files and queues stay usable, but another process
// may now open the directory: close them first.
func (d *Dir) Close() error {
	if d.lock == nil {
		return nil
	}
	return wrap("close", lockName, 0, d.lock.Close())
}

// Path returns the absolute path of the directory.
func (d *Dir) Path() string { return d.root }

// Engine returns "io_uring" or "pwrite": what NewQueue gives.
func (d *Dir) Engine() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engine
}

// EngineReason tells in words why it is that engine.
func (d *Dir) EngineReason() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reason
}

// NewQueue returns a queue of the best engine that is permitted. depth is the
// largest number of writes in flight.
func (d *Dir) NewQueue(depth int) (Queue, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine == EngineUring {
		q, err := newUringQueue(depth)
		if err == nil {
			return q, nil
		}
		d.engine, d.reason = EnginePwrite, "the kernel refuses io_uring: "+err.Error()
	}
	return newPwriteQueue(depth), nil
}

// FreeSpace returns the bytes that an unprivileged process may still use.
func (d *Dir) FreeSpace() (int64, error) { return FreeSpace(d.root) }

// FreeSpace returns the bytes that an unprivileged process may still use on the
// file system of a path.
func FreeSpace(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, wrap("statfs", path, 0, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func (d *Dir) takeLock() error {
	name := filepath.Join(d.root, lockName)
	if d.opts.ReadOnly {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			_, err = os.Stat(d.root)
			return err
		}
		if err != nil {
			return err
		}
		return d.flock(f, unix.LOCK_SH)
	}
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return err
	}
	if err := d.flock(f, unix.LOCK_EX); err != nil {
		return err
	}
	// The pid is for people; the lock itself is the flock. So it need not be durable.
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func (d *Dir) flock(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if err == nil {
		d.lock = f
		return nil
	}
	defer f.Close()
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	var p [20]byte
	n, _ := f.ReadAt(p[:], 0)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(p[:n])))
	return &LockedError{PID: pid}
}

// syncTree makes the names durable that a process left which died between a
// change of names and the sync that follows.
func (d *Dir) syncTree() error {
	if d.opts.ReadOnly {
		return nil
	}
	return filepath.WalkDir(d.root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = d.syncDir(path)
		}
		return err
	})
}

// makeDir makes an absolute directory with its parents and makes the new names durable.
func (d *Dir) makeDir(dir string) error {
	err := unix.Mkdir(dir, dirPerm)
	switch {
	case err == nil:
		return d.syncDir(filepath.Dir(dir))
	case errors.Is(err, unix.EEXIST):
		st, err := os.Stat(dir)
		if err == nil && !st.IsDir() {
			err = unix.ENOTDIR
		}
		return err
	case !errors.Is(err, unix.ENOENT) || filepath.Dir(dir) == dir:
		return err
	}
	if err := d.makeDir(filepath.Dir(dir)); err != nil {
		return err
	}
	return d.makeDir(dir)
}

// syncDir makes the names in an absolute directory durable.
func (d *Dir) syncDir(dir string) error {
	if d.opts.NoSync {
		return nil
	}
	fd, err := retry(func() (int, error) { return unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return fmt.Errorf("sync of the directory: %w", err)
	}
	defer unix.Close(fd)
	if _, err = retry(func() (int, error) { return 0, unix.Fsync(fd) }); err != nil {
		return fmt.Errorf("sync of the directory: %w", err)
	}
	return nil
}

// abs returns the path of a name.
func (d *Dir) abs(name string) (string, error) {
	if !validName(name) || name == lockName {
		return "", ErrBadName
	}
	return filepath.Join(d.root, filepath.FromSlash(name)), nil
}

// Create implements FS.
func (d *Dir) Create(name string, sizeBytes int64) (File, error) {
	f, err := d.create(name, sizeBytes)
	if err != nil {
		return nil, wrap("create", name, 0, err)
	}
	return f, nil
}

func (d *Dir) create(name string, sizeBytes int64) (*dirFile, error) {
	abs, err := d.abs(name)
	if err != nil {
		return nil, err
	}
	flags := unix.O_RDWR | unix.O_CREAT | unix.O_EXCL | unix.O_CLOEXEC
	var fd int
	err = d.withParent(abs, func() error {
		var err error
		fd, err = retry(func() (int, error) { return unix.Open(abs, flags, filePerm) })
		return err
	})
	if err != nil {
		return nil, err
	}
	f := &dirFile{fd: fd, name: name, noSync: d.opts.NoSync}
	err = fillZero(abs, f, sizeBytes)
	if err == nil {
		err = f.sync(unix.Fsync)
	}
	if err == nil {
		err = d.syncDir(filepath.Dir(abs))
	}
	if err == nil {
		return f, nil
	}
	// Leave no half-made file; the first error is the one to report.
	_ = f.Close()
	_ = unix.Unlink(abs)
	return nil, err
}

// withParent makes the parent directory of an absolute name and calls enter,
// which enters the name there. A Remove that leaves the directory empty may take
// it away in between.
func (d *Dir) withParent(abs string, enter func() error) error {
	for try := 0; ; try++ {
		err := d.makeDir(filepath.Dir(abs))
		if err == nil {
			err = enter()
		}
		if !errors.Is(err, unix.ENOENT) || try == 2 {
			return err
		}
	}
}

// fillZero writes zeroes, so that a later durable write need not change any
// metadata: into merely allocated space it would cost 1.3 to 3 times as much.
// The fill bypasses the page cache where it can, which spares the cache and
// keeps the closing sync short.
func fillZero(abs string, f *dirFile, sizeBytes int64) error {
	if sizeBytes == 0 {
		return nil
	}
	// One extent if possible. Not every file system can; ENOSPC comes early.
	err := unix.Fallocate(f.fd, 0, 0, sizeBytes)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINTR) {
		return err
	}
	zeroes := AlignedBuf(int(min(fillChunk, sizeBytes)))
	defer FreeBuf(zeroes)
	out := f
	if fd, err := unix.Open(abs, unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0); err == nil {
		defer unix.Close(fd)
		out = &dirFile{fd: fd, name: f.name}
	}
	for off := int64(0); off < sizeBytes; {
		n := min(int64(len(zeroes)), sizeBytes-off)
		if n%Align != 0 {
			out = f
		}
		err := out.writeAt(zeroes[:n], off)
		if errors.Is(err, unix.EINVAL) && out != f { // no direct I/O after all
			out = f
			continue
		}
		if err != nil {
			return err
		}
		off += n
	}
	return nil
}

// Open implements FS. On a file system that knows no direct I/O a Direct file
// is written through the page cache, durably all the same.
func (d *Dir) Open(name string, mode Mode) (File, error) {
	abs, err := d.abs(name)
	if err != nil {
		return nil, wrap("open", name, 0, err)
	}
	flags := unix.O_CLOEXEC
	switch mode {
	case ReadOnly:
		flags |= unix.O_RDONLY
	case ReadWrite:
		flags |= unix.O_RDWR
	case Direct:
		flags |= unix.O_RDWR | unix.O_DIRECT
		if !d.opts.NoSync {
			flags |= unix.O_DSYNC
		}
	}
	open := func() (int, error) { return unix.Open(abs, flags, 0) }
	fd, err := retry(open)
	if mode == Direct && errors.Is(err, unix.EINVAL) {
		flags &^= unix.O_DIRECT
		fd, err = retry(open)
	}
	if err != nil {
		return nil, wrap("open", name, 0, err)
	}
	return &dirFile{fd: fd, name: name, noSync: d.opts.NoSync, direct: mode == Direct}, nil
}

// Rename implements FS.
func (d *Dir) Rename(oldName, newName string) error {
	from, err := d.abs(oldName)
	if err != nil {
		return wrap("rename", oldName, 0, err)
	}
	to, err := d.abs(newName)
	if err == nil {
		err = unix.Rename(from, to)
	}
	if err == nil {
		err = d.syncDir(filepath.Dir(to))
	}
	if err == nil && filepath.Dir(from) != filepath.Dir(to) {
		err = d.syncDir(filepath.Dir(from))
	}
	return wrap("rename", oldName, 0, err)
}

// Link implements FS.
func (d *Dir) Link(oldName, newName string) error {
	from, err := d.abs(oldName)
	if err != nil {
		return wrap("link", oldName, 0, err)
	}
	to, err := d.abs(newName)
	if err == nil {
		// The old name is looked at first: ENOENT shall not mean the directory.
		if _, err = os.Lstat(from); err == nil {
			err = d.withParent(to, func() error { return unix.Link(from, to) })
		}
	}
	if err == nil {
		err = d.syncDir(filepath.Dir(to))
	}
	return wrap("link", newName, 0, err)
}

// Remove implements FS.
func (d *Dir) Remove(name string) error {
	abs, err := d.abs(name)
	if err == nil {
		err = unix.Unlink(abs)
	}
	if err == nil {
		dir := filepath.Dir(abs)
		for dir != d.root && unix.Rmdir(dir) == nil {
			dir = filepath.Dir(dir)
		}
		err = d.syncDir(dir)
	}
	return wrap("remove", name, 0, err)
}

// List implements FS. The lock file is not listed.
func (d *Dir) List(dir string) ([]Info, error) {
	if dir != "" && !validName(dir) {
		return nil, wrap("list", dir, 0, ErrBadName)
	}
	entries, err := os.ReadDir(filepath.Join(d.root, filepath.FromSlash(dir)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("list", dir, 0, err)
	}
	var infos []Info
	for _, e := range entries {
		if e.IsDir() || path.Join(dir, e.Name()) == lockName {
			continue
		}
		st, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			continue
		}
		if err != nil {
			return nil, wrap("list", path.Join(dir, e.Name()), 0, err)
		}
		infos = append(infos, Info{Name: e.Name(), SizeBytes: st.Size()})
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Name < infos[j].Name })
	return infos, nil
}
