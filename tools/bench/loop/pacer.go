package loop

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pacer says when operations are due.
//
// It sleeps on a timerfd read through Go's poller. time.Sleep will not do: an
// idle Go process rounds its sleeps up to the millisecond of epoll_wait, which
// would be charged to the server.
type pacer struct {
	begin time.Time
	rate  float64 // operations per second
	until time.Duration
	fd    int
	timer *os.File // owns fd
	sent  int64    // operations handed out; read after run has returned
}

func newPacer(begin time.Time, rate float64, until time.Duration) (*pacer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	return &pacer{begin: begin, rate: rate, until: until, fd: fd, timer: os.NewFile(uintptr(fd), "timerfd")}, nil
}

// run sends the due time of each operation when it has come, late ones at
// once, and closes due at the end.
func (p *pacer) run(ctx context.Context, due chan<- time.Duration) {
	defer close(due)
	defer p.timer.Close()
	wake := context.AfterFunc(ctx, func() { _ = p.timer.SetReadDeadline(time.Unix(1, 0)) })
	defer wake()
	for {
		at := dueAt(p.sent, p.rate)
		if at >= p.until || p.sleepUntil(at) != nil {
			return
		}
		select {
		case due <- at:
			p.sent++
		case <-ctx.Done():
			return
		}
	}
}

// unsent calls visit with the due times that run did not get rid of.
func (p *pacer) unsent(visit func(at time.Duration)) {
	for i := p.sent; ; i++ {
		at := dueAt(i, p.rate)
		if at >= p.until {
			return
		}
		visit(at)
	}
}

// dueAt is the time of operation i. It is computed from i, so that rounding
// does not add up.
func dueAt(i int64, rate float64) time.Duration {
	return time.Duration(float64(i) / rate * float64(time.Second))
}

// sleepUntil returns at once when the time has passed.
func (p *pacer) sleepUntil(at time.Duration) error {
	d := at - time.Since(p.begin)
	if d <= 0 {
		return nil
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(d))}
	if err := unix.TimerfdSettime(p.fd, 0, &spec, nil); err != nil {
		return fmt.Errorf("timerfd_settime: %w", err)
	}
	var expirations [8]byte
	if _, err := p.timer.Read(expirations[:]); err != nil {
		return fmt.Errorf("waiting on the timerfd: %w", err)
	}
	return nil
}
