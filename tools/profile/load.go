package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// finishLimit is how long a load may go on after the last window, to print what
// it measured.
const finishLimit = time.Minute

// load is the command that loads the server; nil without one.
type load struct {
	cmd    *exec.Cmd
	output *os.File
	exited chan error
}

// startLoad starts the command with its output in the file path.
func startLoad(args []string, path string) (*load, error) {
	if len(args) == 0 {
		return nil, nil
	}
	output, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("making the load's output: %w", err)
	}
	l := &load{cmd: exec.Command(args[0], args[1:]...), output: output, exited: make(chan error, 1)}
	l.cmd.Stdout, l.cmd.Stderr = output, output
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := l.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the load: %w", err), output.Close())
	}
	go func() { l.exited <- l.cmd.Wait() }()
	return l, nil
}

// errEnded: what was captured after the load's end is not under load.
var errEnded = errors.New("the load ended before the capture; give it more time")

// during waits and fails if the load ends meanwhile or has ended.
func (l *load) during(ctx context.Context, d time.Duration) error {
	var exited chan error
	if l != nil {
		exited = l.exited
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-exited:
		exited <- err
		return errors.Join(errEnded, err)
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-exited: // both were ready
		exited <- err
		return errors.Join(errEnded, err)
	default:
		return nil
	}
}

// finish waits for the load's end, which is forced after finishLimit, or at once
// if what was captured is of no use.
func (l *load) finish(ctx context.Context, useful bool) error {
	if l == nil {
		return nil
	}
	limit := finishLimit
	if !useful {
		limit = 0
	}
	select {
	case <-l.exited:
		return l.output.Close()
	case <-time.After(limit):
	case <-ctx.Done():
	}
	err := l.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-l.exited
	return errors.Join(err, l.output.Close())
}
