package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Host is a machine of its own for one server: a network namespace of Linux with one interface, which a cable leads to
// the hub of all hosts. Unlike a proxy it loses packets without a word: nobody is told that a connection has ended.
type Host struct {
	hub   *hub
	name  string // of the namespace, and of the cable's end at the hub
	ip    string
	drops map[string]bool // addresses to which nothing passes
}

// hub is a bridge with the test process on it. Its addresses are of 198.18.0.0/15, which is set aside for tests (RFC 2544).
type hub struct {
	number int // third byte of the addresses, and part of all names
	hosts  []*Host
}

const hubs = 256

// newHub takes a hub that no other test process has. The test is skipped where namespaces cannot be made.
func newHub(t testing.TB) *hub {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("network namespaces need the tool ip of iproute2")
	}
	h := &hub{}
	for ; !h.lock(); h.number++ {
		if h.number == hubs-1 {
			t.Fatal("all networks for tests are taken by other test processes")
		}
	}
	h.remove() // what a process that was killed has left
	t.Cleanup(h.remove)
	for _, args := range []string{
		fmt.Sprintf("link add %s type bridge", h.bridge()),
		fmt.Sprintf("addr add %s/24 dev %s", h.address(254), h.bridge()),
		fmt.Sprintf("link set %s up", h.bridge()),
	} {
		if err := ip(args); err != nil {
			t.Skipf("network namespaces cannot be made: %v", err)
		}
	}
	return h
}

func (h *hub) bridge() string          { return fmt.Sprintf("quire%d", h.number) }
func (h *hub) address(host int) string { return fmt.Sprintf("198.18.%d.%d", h.number, host) }
func (h *hub) hostName(i int) string   { return fmt.Sprintf("quire%d-%d", h.number, i) }

const maxHosts = 64

// lock: a hub belongs to a test process until that ends, as a block of ports does.
func (h *hub) lock() bool {
	ports.Lock()
	defer ports.Unlock()
	path := filepath.Join(os.TempDir(), fmt.Sprintf("quire-test-hub-%d", h.number))
	return blockFiles[path] == nil && lockBlock(path)
}

func (h *hub) remove() {
	out, _ := exec.Command("ip", "netns", "list").Output()
	for _, line := range strings.Split(string(out), "\n") {
		if name, _, _ := strings.Cut(line, " "); strings.HasPrefix(name, h.bridge()+"-") {
			_ = ip("netns del " + name)
		}
	}
	_ = ip("link del " + h.bridge())
}

// host adds one more host.
func (h *hub) host(t testing.TB) *Host {
	t.Helper()
	i := len(h.hosts) + 1
	if i > maxHosts {
		t.Fatalf("more than %d hosts", maxHosts)
	}
	x := &Host{hub: h, name: h.hostName(i), ip: h.address(i), drops: map[string]bool{}}
	h.hosts = append(h.hosts, x)
	for _, args := range []string{
		"netns add " + x.name,
		fmt.Sprintf("link add %s type veth peer name eth0 netns %s", x.name, x.name),
		fmt.Sprintf("link set %s master %s", x.name, h.bridge()),
		fmt.Sprintf("link set %s up", x.name),
		fmt.Sprintf("-n %s link set lo up", x.name),
		fmt.Sprintf("-n %s addr add %s/24 dev eth0", x.name, x.ip),
		fmt.Sprintf("-n %s link set eth0 up", x.name),
	} {
		if err := ip(args); err != nil {
			t.Fatal(err)
		}
	}
	return x
}

// nobody is the hardware address of no host.
const nobody = "02:00:00:00:ff:ff"

// cut: nothing that the host sends reaches the other any more.
func (x *Host) cut(to *Host) error {
	x.drops[to.ip] = true
	return ip(fmt.Sprintf("-n %s neigh replace %s lladdr %s dev eth0 nud permanent", x.name, to.ip, nobody))
}

func (x *Host) heal() error {
	for to := range x.drops {
		if err := ip(fmt.Sprintf("-n %s neigh del %s dev eth0", x.name, to)); err != nil {
			return err
		}
		delete(x.drops, to)
	}
	return nil
}

// plug connects the cable with the hub, or pulls it out.
func (x *Host) plug(in bool) error {
	state := "down"
	if in {
		state = "up"
	}
	return ip(fmt.Sprintf("link set %s %s", x.name, state))
}

// blink pulls the hub's cables for a moment.
func (h *hub) blink() error {
	for _, in := range []bool{false, true} {
		for _, x := range h.hosts {
			if err := x.plug(in); err != nil {
				return err
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// ip runs one command of iproute2.
func ip(args string) error {
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, strings.TrimSpace(string(out)))
	}
	return nil
}
