package capture

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// ErrNoStrace says that strace is not installed.
var ErrNoStrace = errors.New("strace is not installed")

// Strace counts the system calls of the process for a while and stores strace's
// table in the file path.
func Strace(ctx context.Context, pid int, path string, window time.Duration) error {
	program, err := exec.LookPath("strace")
	if err != nil {
		return ErrNoStrace
	}
	ctx, cancel := context.WithTimeout(ctx, window)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-f", "-c", "-U", "calls,errors,time,total-time,avg-time,name", "-o", path, "-p", strconv.Itoa(pid))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) } // strace then detaches and prints
	cmd.WaitDelay = slack
	out, err := cmd.CombinedOutput()
	if ctx.Err() == nil && err != nil {
		return fmt.Errorf("strace: %w: %s", err, out)
	}
	if info, err := os.Stat(path); err != nil || info.Size() == 0 {
		return fmt.Errorf("strace counted nothing: %s", out)
	}
	return nil
}
