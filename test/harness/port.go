package harness

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
)

// Ports are taken below the kernel's ephemeral range, so that no outgoing connection can get hold of one between its
// choice and its use, in blocks that a test process locks for itself until it ends, so that no other test process can.
const (
	portLow    = 11_000
	portHigh   = 32_000
	blockPorts = 64
	portBlocks = (portHigh - portLow) / blockPorts

	// Upstream's end-to-end tests (make conformance) take these whoever has them.
	takenLow  = 20_000
	takenHigh = 20_200
)

var ports = struct {
	sync.Mutex
	block int // the last block that was tried
	next  int // port
	end   int // of the block
}{block: os.Getpid()}

// FreePort returns an address of 127.0.0.1 on which nobody listens and which nobody has been given before.
func FreePort(t testing.TB) string {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range portHigh - portLow {
		if ports.next == ports.end {
			if err := lockBlockLocked(); err != nil {
				t.Fatal(err)
			}
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(ports.next))
		ports.next++
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}

// lockBlockLocked moves on to a block of ports that no other process has. Its own blocks a process may take again.
func lockBlockLocked() error {
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("quire-test-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for range portBlocks {
		ports.block = (ports.block + 1) % portBlocks
		if low := portLow + ports.block*blockPorts; low < takenHigh && low+blockPorts > takenLow {
			continue
		}
		if lockBlock(filepath.Join(dir, strconv.Itoa(ports.block))) {
			ports.next = portLow + ports.block*blockPorts
			ports.end = ports.next + blockPorts
			return nil
		}
	}
	return fmt.Errorf("all %d blocks of ports are taken by other test processes: see %s", portBlocks, dir)
}

// blockFiles keeps the locked files open; by path.
var blockFiles = map[string]*os.File{}

func lockBlock(path string) bool {
	if blockFiles[path] != nil {
		return true
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return false
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return false
	}
	blockFiles[path] = f
	return true
}
