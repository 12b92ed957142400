package disk

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"path"
	"sort"
	"sync"
)

// ErrCrashed is what every operation of a Mem returns once the operation given
// to StopAfter has been reached: the power is off.
var ErrCrashed = errors.New("simulated power cut")

// OpKind is a kind of operation of a Mem.
type OpKind uint8

// The operations that a Mem counts. OpRead is not among those counted by Ops,
// it changes nothing; faults can be injected into it all the same.
const (
	OpAny      OpKind = iota // in a Fault: every counted kind
	OpLink                   // Create and Link enter the name
	OpWrite                  // WriteAt, and the zero fill of Create
	OpTruncate               // Truncate
	OpSync                   // Sync, and the sync of Create
	OpRename                 // Rename moves the name
	OpUnlink                 // Remove takes the name away
	OpSyncDir                // the directory sync that ends Create, Link, Rename, Remove
	OpSubmit                 // Queue.Submit issues a write
	OpComplete               // Queue.Wait completes a write
	OpRead                   // ReadAt
)

var opNames = [...]string{"any", "link", "write", "truncate", "sync", "rename", "unlink", "syncdir", "submit", "complete", "read"}

func (k OpKind) String() string { return opNames[k] }

// Mem is an FS in memory that can be crashed. It is deterministic: the same
// seed and the same calls give the same completions and the same images. It is
// safe for concurrent use; determinism then depends on the caller's order.
//
// A power cut is simulated in two ways. StopAfter(n) makes operation n and all
// later ones fail with ErrCrashed, after operation n has been issued; Crash then
// gives images of what may be on the disk. Or OnOp is called at each operation,
// after it has been issued and before it takes effect, and may itself call
// Crash: that enumerates all crash points in one run.
type Mem struct {
	mu      sync.Mutex
	cond    *sync.Cond // a queue write was submitted, or power went off
	rng     *rand.Rand
	names   map[string]*memInode // as a running process sees it
	dur     map[string]*memInode // as the platter has it
	pend    []*nameOp            // issued, not yet durable, in order
	ops     int
	stopAt  int // 0: never
	off     bool
	onOp    func(op int)
	faults  []*Fault
	faulted int // operations that failed by them
}

// nameOp is a change of names that is not yet durable.
type nameOp struct {
	kind     OpKind // OpLink, OpRename, OpUnlink
	from, to string // OpLink: to; OpUnlink: from
	inode    *memInode
	// journaled: some file was synced since; on ext4 that commits the
	// transaction this change is in.
	journaled bool
}

// NewMem returns an empty disk.
func NewMem(seed uint64) *Mem {
	m := &Mem{
		rng:   rand.New(rand.NewPCG(seed, 0x6d656d)),
		names: map[string]*memInode{},
		dur:   map[string]*memInode{},
	}
	m.cond = sync.NewCond(&m.mu)
	return m
}

// Ops returns the number of counted operations so far.
func (m *Mem) Ops() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ops
}

// StopAfter cuts the power at operation n, counted from 1 over the life of m:
// it is issued but never answered. 0 means never.
func (m *Mem) StopAfter(n int) {
	m.mu.Lock()
	m.stopAt = n
	m.mu.Unlock()
}

// OnOp sets a function to be called at each operation, when it has been issued
// and has not yet taken effect. No lock is held; it may call Crash.
func (m *Mem) OnOp(f func(op int)) {
	m.mu.Lock()
	m.onOp = f
	m.mu.Unlock()
}

// stepLocked counts one operation that the caller has just registered as
// issued. It returns ErrCrashed when the power went off at this operation.
func (m *Mem) stepLocked() error {
	if m.off {
		return ErrCrashed
	}
	m.ops++
	n := m.ops
	if f := m.onOp; f != nil {
		m.mu.Unlock()
		f(n)
		m.mu.Lock()
	}
	if m.stopAt > 0 && n >= m.stopAt {
		m.off = true
		m.cond.Broadcast()
	}
	if m.off {
		return ErrCrashed
	}
	return nil
}

func validName(name string) bool { return name != "." && fs.ValidPath(name) }

// Create implements FS.
func (m *Mem) Create(name string, sizeBytes int64) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := m.createLocked(name, sizeBytes)
	if err != nil {
		return nil, wrap("create", name, 0, err)
	}
	return f, nil
}

func (m *Mem) createLocked(name string, sizeBytes int64) (*memFile, error) {
	if m.off {
		return nil, ErrCrashed
	}
	if !validName(name) {
		return nil, ErrBadName
	}
	if m.names[name] != nil {
		return nil, fs.ErrExist
	}
	if err := m.faultLocked(OpLink, name); err != nil {
		return nil, err
	}
	in := newInode()
	m.names[name] = in
	op := &nameOp{kind: OpLink, to: name, inode: in}
	m.pend = append(m.pend, op)
	err := m.stepLocked()
	f := &memFile{m: m, in: in, name: name, mode: ReadWrite}
	if err == nil && sizeBytes > 0 {
		err = f.writeLocked(&memWrite{kind: zeroWrite, n: sizeBytes})
	}
	if err == nil {
		err = f.syncLocked()
	}
	if err == nil {
		err = m.syncDirLocked(path.Dir(name), name)
	}
	if err == nil {
		return f, nil
	}
	if !m.off { // a failed Create leaves nothing behind, as far as it can
		m.unlinkLocked(name)
	}
	return nil, err
}

// Open implements FS.
func (m *Mem) Open(name string, mode Mode) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return nil, wrap("open", name, 0, ErrCrashed)
	}
	in := m.names[name]
	if in == nil {
		return nil, wrap("open", name, 0, fs.ErrNotExist)
	}
	return &memFile{m: m, in: in, name: name, mode: mode}, nil
}

// Link implements FS.
func (m *Mem) Link(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return wrap("link", newName, 0, m.linkLocked(oldName, newName))
}

func (m *Mem) linkLocked(oldName, newName string) error {
	if m.off {
		return ErrCrashed
	}
	if !validName(oldName) || !validName(newName) {
		return ErrBadName
	}
	in := m.names[oldName]
	switch {
	case in == nil:
		return fs.ErrNotExist
	case m.names[newName] != nil:
		return fs.ErrExist
	}
	if err := m.faultLocked(OpLink, newName); err != nil {
		return err
	}
	m.names[newName] = in
	m.pend = append(m.pend, &nameOp{kind: OpLink, to: newName, inode: in})
	if err := m.stepLocked(); err != nil {
		return err
	}
	return m.syncDirLocked(path.Dir(newName), newName)
}

// Rename implements FS.
func (m *Mem) Rename(oldName, newName string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return wrap("rename", oldName, 0, m.renameLocked(oldName, newName))
}

func (m *Mem) renameLocked(oldName, newName string) error {
	if m.off {
		return ErrCrashed
	}
	if !validName(oldName) || !validName(newName) {
		return ErrBadName
	}
	in := m.names[oldName]
	if in == nil {
		return fs.ErrNotExist
	}
	if err := m.faultLocked(OpRename, oldName); err != nil {
		return err
	}
	delete(m.names, oldName)
	m.names[newName] = in
	m.pend = append(m.pend, &nameOp{kind: OpRename, from: oldName, to: newName, inode: in})
	if err := m.stepLocked(); err != nil {
		return err
	}
	if err := m.syncDirLocked(path.Dir(oldName), oldName); err != nil {
		return err
	}
	if path.Dir(oldName) == path.Dir(newName) {
		return nil
	}
	return m.syncDirLocked(path.Dir(newName), newName)
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return wrap("remove", name, 0, ErrCrashed)
	}
	if m.names[name] == nil {
		return wrap("remove", name, 0, fs.ErrNotExist)
	}
	if err := m.faultLocked(OpUnlink, name); err != nil {
		return wrap("remove", name, 0, err)
	}
	m.unlinkLocked(name)
	err := m.stepLocked()
	if err == nil {
		err = m.syncDirLocked(path.Dir(name), name)
	}
	return wrap("remove", name, 0, err)
}

func (m *Mem) unlinkLocked(name string) {
	in := m.names[name]
	delete(m.names, name)
	m.pend = append(m.pend, &nameOp{kind: OpUnlink, from: name, inode: in})
}

// syncDirLocked makes the changes of names in dir durable; name is for faults.
func (m *Mem) syncDirLocked(dir, name string) error {
	if err := m.faultLocked(OpSyncDir, name); err != nil {
		return err
	}
	if err := m.stepLocked(); err != nil {
		return err
	}
	rest := m.pend[:0]
	for _, op := range m.pend {
		if op.dir() == dir {
			op.apply(m.dur)
		} else {
			rest = append(rest, op)
		}
	}
	m.pend = rest
	return nil
}

// dir is the directory whose sync makes op durable. A rename between two
// directories counts for the old one: a simplification, none of our formats
// moves files between directories.
func (op *nameOp) dir() string {
	if op.kind == OpLink {
		return path.Dir(op.to)
	}
	return path.Dir(op.from)
}

func (op *nameOp) apply(names map[string]*memInode) {
	if op.from != "" && names[op.from] == op.inode {
		delete(names, op.from)
	}
	if op.to != "" {
		names[op.to] = op.inode
	}
}

// List implements FS.
func (m *Mem) List(dir string) ([]Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return nil, wrap("list", dir, 0, ErrCrashed)
	}
	want := path.Clean(dir)
	var infos []Info
	for name, in := range m.names {
		if path.Dir(name) == want {
			infos = append(infos, Info{Name: path.Base(name), SizeBytes: in.cur.size})
		}
	}
	sort.Slice(infos, func(i, j int) bool { return infos[i].Name < infos[j].Name })
	return infos, nil
}
