// Package disk is the only package that opens files. It owns names, handles,
// alignment, locking of a directory and durable writes; it knows no format.
//
// # Implementations
//
//   - Dir: one real directory. Buffered files for everything that is written
//     behind, Direct files (O_DIRECT|O_DSYNC) for durable writes. Its Queue is
//     io_uring when built with the tag giouring and permitted by the kernel,
//     else a set of pwrite workers; Dir.Engine and Dir.EngineReason tell which.
//   - Mem: files in memory that remember, for every byte, whether it has been
//     made durable. Mem.Crash gives the disk as a power cut leaves it.
//
// # Terms
//
//   - durable: survives a power cut.
//   - sector: 512 bytes, the unit in which a write may tear.
//   - operation (of Mem): one step that changes state and at which a crash
//     makes a difference. One call may be several: Create is link, write, sync,
//     sync of the directory.
//
// # How it fails
//
// Every error is an *Error with the operation, the name and the offset, and
// unwraps to the errno (or to fs.ErrExist, fs.ErrNotExist, ErrLocked, …). A
// write is whole or an error; after an error the content of its range is
// unknown. The first error of Sync is final for the file: Linux marks pages
// that it failed to write as clean, so that a second Sync would succeed without
// having written anything.
package disk
