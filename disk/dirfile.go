package disk

import (
	"errors"
	"io"
	"io/fs"

	"golang.org/x/sys/unix"
)

// dirFile is a handle of a real file. It uses the descriptor directly: os.File
// would retry short direct writes at misaligned addresses.
type dirFile struct {
	fd     int // -1 after Close
	name   string
	noSync bool
	direct bool
}

// retry repeats a system call that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func (f *dirFile) Name() string { return f.name }

func (f *dirFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := retry(func() (int, error) { return unix.Pread(f.fd, p[done:], off+int64(done)) })
		if err != nil {
			return done, wrap("read", f.name, off+int64(done), err)
		}
		if n == 0 {
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

func (f *dirFile) WriteAt(p []byte, off int64) error {
	if f.direct && len(p) > 0 && !aligned(p, off) {
		return wrap("write", f.name, off, ErrMisaligned)
	}
	return wrap("write", f.name, off, f.writeAt(p, off))
}

// writeAt writes all of p. A short write is continued where the next byte lies
// on a boundary that the file can be written at, so that the reason for it
// (ENOSPC, EFBIG, …) becomes known.
func (f *dirFile) writeAt(p []byte, off int64) error {
	for len(p) > 0 {
		n, err := retry(func() (int, error) { return unix.Pwrite(f.fd, p, off) })
		if err != nil {
			return err
		}
		if n == 0 || f.direct && n%Align != 0 && n < len(p) {
			return io.ErrShortWrite
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func (f *dirFile) Sync() error { return wrap("sync", f.name, 0, f.sync(unix.Fdatasync)) }

func (f *dirFile) sync(call func(fd int) error) error {
	if f.noSync {
		return nil
	}
	_, err := retry(func() (int, error) { return 0, call(f.fd) })
	return err
}

func (f *dirFile) Truncate(sizeBytes int64) error {
	_, err := retry(func() (int, error) { return 0, unix.Ftruncate(f.fd, sizeBytes) })
	return wrap("truncate", f.name, sizeBytes, err)
}

func (f *dirFile) Size() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, wrap("stat", f.name, 0, err)
	}
	return st.Size, nil
}

func (f *dirFile) Close() error {
	if f.fd < 0 {
		return wrap("close", f.name, 0, fs.ErrClosed)
	}
	fd := f.fd
	f.fd = -1
	return wrap("close", f.name, 0, unix.Close(fd))
}
