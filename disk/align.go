package disk

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// AlignedBuf returns n zeroed bytes (n > 0, rounded up to Align in capacity) at
// an address that is a multiple of Align, outside the Go heap: direct I/O and
// the ring may hold the address while the garbage collector runs. Release with
// FreeBuf. It panics when the kernel has no memory, as an allocation would.
func AlignedBuf(n int) []byte {
	size := AlignUp(n)
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		panic("disk: mmap of a buffer: " + err.Error())
	}
	return b[:n]
}

// FreeBuf releases what AlignedBuf returned; b may have been resliced in length
// but must begin at the same address. Nobody may touch it afterwards.
func FreeBuf(b []byte) {
	if cap(b) == 0 {
		return
	}
	// Munmap fails only for a slice that AlignedBuf did not return.
	if err := unix.Munmap(b[:cap(b)]); err != nil {
		panic("disk: FreeBuf: " + err.Error())
	}
}

// AlignUp rounds n up to a multiple of Align.
func AlignUp(n int) int { return (n + Align - 1) &^ (Align - 1) }

// aligned reports whether p may be written directly at off.
func aligned(p []byte, off int64) bool {
	if len(p) == 0 || len(p)%Align != 0 || off%Align != 0 {
		return false
	}
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))%Align == 0
}
