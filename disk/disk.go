package disk

// FS is one directory tree: a data directory or a log directory. All names are
// relative slash-separated paths below its root.
//
// Every name change (Create, Rename, Link, Remove) is durable when the call
// returns: the implementation syncs the parent directory.
type FS interface {
	// Create makes a new file of mode 0600, writes zeroes over its whole
	// sizeBytes and makes both the content and the name durable. The file is
	// returned opened for reading and writing. It fails with fs.ErrExist if
	// the name is taken. Missing parent directories are created (0700).
	Create(name string, sizeBytes int64) (File, error)
	// Open opens an existing file; fs.ErrNotExist if there is none.
	Open(name string, mode Mode) (File, error)
	// Rename gives oldName the name newName and replaces what had it.
	Rename(oldName, newName string) error
	// Link gives the file oldName a second name, of which it is worth as much;
	// fs.ErrExist if newName is taken. Missing parent directories are created.
	// Not every file system can.
	Link(oldName, newName string) error
	// Remove deletes a name, and directories that are left empty by that, but
	// not the root. Open handles stay readable.
	Remove(name string) error
	// List returns the files of dir ("" is the root) sorted by name; a
	// missing directory is empty. Directories are not listed.
	List(dir string) ([]Info, error)
}

// Room returns how many bytes can still be written to fsys, if it knows.
func Room(fsys FS) (bytes int64, known bool) {
	if f, ok := fsys.(interface{ FreeSpace() (int64, error) }); ok {
		bytes, err := f.FreeSpace()
		return bytes, err == nil
	}
	return 0, false
}

// Mode says how Open opens a file.
type Mode int

const (
	// ReadOnly opens for buffered reading.
	ReadOnly Mode = iota
	// ReadWrite opens for buffered reading and writing; Sync makes durable.
	ReadWrite
	// Direct opens for durable writes that bypass the page cache
	// (O_DIRECT|O_DSYNC): buffer address, length and offset are multiples
	// of Align.
	Direct
)

// Align is the alignment in bytes of direct I/O: address, length and offset.
const Align = 4096

// Info is one entry of List.
type Info struct {
	Name      string // base name
	SizeBytes int64
}

// File is one open file. It has one owner that writes, syncs, truncates and
// closes it; ReadAt may run concurrently with everything but Close.
type File interface {
	// ReadAt follows io.ReaderAt. On a file opened Direct p and off are
	// aligned as for writing.
	ReadAt(p []byte, off int64) (int, error)
	// WriteAt writes all of p or returns an error. What it wrote is durable
	// after the next Sync, or at once if the file was opened Direct.
	WriteAt(p []byte, off int64) error
	// Sync makes every completed write and size change durable (fdatasync).
	// Its first error is final: after it nobody knows what is on the disk.
	Sync() error
	// Truncate sets the size in bytes; durable after Sync.
	Truncate(sizeBytes int64) error
	// Size returns the current size in bytes.
	Size() (int64, error)
	// Name returns the name the file was opened under.
	Name() string
	// Close releases the handle; it does not sync.
	Close() error
}

// Write is one durable write for a Queue.
type Write struct {
	File  File   // opened Direct
	Buf   []byte // aligned to Align in address and length; untouched until its completion
	Off   int64  // multiple of Align
	Token uint64 // returned with the completion
}

// Completion tells that the write with this Token has ended. With a nil Err
// the whole buffer is durable.
type Completion struct {
	Token uint64
	Err   error
}

// Queue submits durable writes without waiting for them. Submit is called by
// one goroutine at a time, Wait by one goroutine at a time; the two may run
// concurrently. Completions come in any order.
type Queue interface {
	// Submit starts w; ErrQueueFull when depth writes are in flight.
	Submit(w Write) error
	// Wait blocks until at least one write has completed, fills done and
	// returns how many; ErrClosed after Close.
	Wait(done []Completion) (int, error)
	// Close waits for the writes in flight and releases the queue.
	Close() error
}
