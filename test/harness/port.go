package harness

import (
	"net"
	"os"
	"strconv"
	"sync"
	"testing"
)

// Ports are taken below the kernel's ephemeral range, so that no outgoing connection of a parallel test can get hold of
// one between its choice and its use. Test processes start at places spread by their id.
const (
	portLow  = 11_000
	portHigh = 32_000
)

var nextPort = struct {
	sync.Mutex
	port int
}{port: portLow + os.Getpid()*128%(portHigh-portLow)}

// FreePort returns a TCP port of 127.0.0.1 on which nobody listens and which this process has not given out before.
func FreePort(t testing.TB) string {
	t.Helper()
	nextPort.Lock()
	defer nextPort.Unlock()
	for range portHigh - portLow {
		nextPort.port++
		if nextPort.port >= portHigh {
			nextPort.port = portLow
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(nextPort.port))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}
