package cpuset

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Set is a set of processors; nil is all of them.
type Set []int

// maxCPU is the highest processor number that fits unix.CPUSet.
const maxCPU = 1023

// Parse reads a list like 0,2-3.
func Parse(text string) (Set, error) {
	if text == "" {
		return nil, nil
	}
	var s Set
	for _, part := range strings.Split(text, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		a, errLow := strconv.Atoi(low)
		b, errHigh := strconv.Atoi(high)
		if errLow != nil || errHigh != nil || a < 0 || b < a || b > maxCPU {
			return nil, fmt.Errorf("%q is not a list of processors like 0,2-3", text)
		}
		for cpu := a; cpu <= b; cpu++ {
			s = append(s, cpu)
		}
	}
	return s, nil
}

// String is the form that Parse reads.
func (s Set) String() string {
	var parts []string
	for _, cpu := range s {
		parts = append(parts, strconv.Itoa(cpu))
	}
	return strings.Join(parts, ",")
}

func (s Set) mask() *unix.CPUSet {
	var m unix.CPUSet
	for _, cpu := range s {
		m.Set(cpu)
	}
	return &m
}

// PinSelf moves every thread of this process onto s, and gives Go as many
// processors as s has.
func (s Set) PinSelf() error {
	if len(s) == 0 {
		return nil
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("listing the threads: %w", err)
	}
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		if err != nil {
			continue
		}
		if err := unix.SchedSetaffinity(tid, s.mask()); err != nil {
			return fmt.Errorf("pinning to processors %s: %w", s, err)
		}
	}
	runtime.GOMAXPROCS(len(s))
	return nil
}

// Start starts cmd on s.
func (s Set) Start(cmd *exec.Cmd) error {
	if len(s) == 0 {
		return cmd.Start()
	}
	// The child inherits the affinity of the thread that forks it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return fmt.Errorf("reading the affinity: %w", err)
	}
	if err := unix.SchedSetaffinity(0, s.mask()); err != nil {
		return fmt.Errorf("pinning to processors %s: %w", s, err)
	}
	err := cmd.Start()
	if errBack := unix.SchedSetaffinity(0, &old); errBack != nil && err == nil {
		err = fmt.Errorf("restoring the affinity: %w", errBack)
	}
	return err
}
