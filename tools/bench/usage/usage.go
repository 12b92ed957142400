package usage

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Reading is what a process has consumed up to now and what it holds now.
type Reading struct {
	User, System time.Duration

	RSSBytes, AnonBytes, FileBytes int64
	PeakBytes                      int64 // highest RSS since the process began or ResetPeak

	ReadBytes, WriteBytes int64 // from and to the disk, page cache excluded
	Threads               int64
}

// CPU is user and system time together.
func (r Reading) CPU() time.Duration { return r.User + r.System }

// ticksPerSecond is the kernel's USER_HZ, 100 on every Linux platform that Go
// supports.
const ticksPerSecond = 100

// Read sums the readings of the processes.
func Read(pids []int) (Reading, error) {
	var sum Reading
	for _, pid := range pids {
		r, err := readOne(os.DirFS(fmt.Sprintf("/proc/%d", pid)))
		if err != nil {
			return Reading{}, fmt.Errorf("process %d: %w", pid, err)
		}
		sum.add(r)
	}
	return sum, nil
}

func (r *Reading) add(o Reading) {
	r.User += o.User
	r.System += o.System
	r.RSSBytes += o.RSSBytes
	r.AnonBytes += o.AnonBytes
	r.FileBytes += o.FileBytes
	r.PeakBytes += o.PeakBytes
	r.ReadBytes += o.ReadBytes
	r.WriteBytes += o.WriteBytes
	r.Threads += o.Threads
}

// ResetPeak makes PeakBytes start again from the present RSS. The kernel lets
// only the owner of the process do so.
func ResetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		return fmt.Errorf("resetting the peak of process %d: %w", pid, err)
	}
	return nil
}

// parseStat reads user and system time from /proc/PID/stat. The second field,
// the command's name, may contain spaces and parentheses.
func parseStat(text []byte) (user, system time.Duration, err error) {
	end := bytes.LastIndexByte(text, ')')
	fields := bytes.Fields(text[end+1:])
	// Fields 14 and 15 of the line; the state behind the name is field 3.
	const utime, stime = 14 - 3, 15 - 3
	if end < 0 || len(fields) <= stime {
		return 0, 0, fmt.Errorf("stat has %d fields behind the name", len(fields))
	}
	u, err := strconv.ParseInt(string(fields[utime]), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("stat's user time: %w", err)
	}
	s, err := strconv.ParseInt(string(fields[stime]), 10, 64)
	if err != nil {
		return 0, 0, fmt.Errorf("stat's system time: %w", err)
	}
	const tick = time.Second / ticksPerSecond
	return time.Duration(u) * tick, time.Duration(s) * tick, nil
}

// parseFields reads the "Name: number [kB]" lines that want names; kB become
// bytes. Lines that are missing leave their value as it was.
func parseFields(text []byte, want map[string]*int64) error {
	for line := range strings.Lines(string(text)) {
		name, rest, ok := strings.Cut(line, ":")
		to := want[name]
		if !ok || to == nil {
			continue
		}
		number, unit, _ := strings.Cut(strings.TrimSpace(rest), " ")
		v, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return fmt.Errorf("field %s: %w", name, err)
		}
		if unit == "kB" {
			v *= 1024
		}
		*to += v
	}
	return nil
}
