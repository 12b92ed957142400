package cluster

import (
	"errors"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"quire/test/harness"
)

// fault is something bad that happens to a server, or to more of them, and is mended again.
type fault struct {
	name   string
	weight int
	do     func(x *chaos, s *harness.Server)
}

func faults() []fault {
	return []fault{
		{"kill", 3, func(x *chaos, s *harness.Server) {
			s.Kill()
			x.lasts()
			s.Restart(x.t)
		}},
		{"power failure", 2, func(x *chaos, s *harness.Server) {
			x.c.PowerOff(x.t, s)
			x.lasts()
			x.c.PowerOn(x.t, s)
		}},
		{"pause", 3, func(x *chaos, s *harness.Server) {
			check(x.t, s.Signal(syscall.SIGSTOP))
			x.lasts()
			check(x.t, s.Signal(syscall.SIGCONT))
		}},
		{"cut off", 3, func(x *chaos, s *harness.Server) {
			x.c.Isolate(x.t, s)
			x.lasts()
			x.c.Heal(x.t)
		}},
		{"deaf", 1, func(x *chaos, s *harness.Server) {
			for _, other := range x.c.Others(s) {
				x.c.Cut(x.t, other, s)
			}
			x.lasts()
			x.c.Heal(x.t)
		}},
		{"mute", 1, func(x *chaos, s *harness.Server) {
			for _, other := range x.c.Others(s) {
				x.c.Cut(x.t, s, other)
			}
			x.lasts()
			x.c.Heal(x.t)
		}},
		{"one link cut", 1, func(x *chaos, s *harness.Server) {
			others := x.c.Others(s)
			other := others[x.random.IntN(len(others))]
			x.c.Cut(x.t, s, other)
			x.c.Cut(x.t, other, s)
			x.lasts()
			x.c.Heal(x.t)
		}},
		{"connections broken", 1, func(x *chaos, _ *harness.Server) { x.c.Break(x.t) }},
		{"orderly restart", 1, func(x *chaos, s *harness.Server) {
			s.Stop(x.t)
			s.Restart(x.t)
		}},
		{"all killed", 1, func(x *chaos, _ *harness.Server) { x.killTogether(len(x.c.Servers), false) }},
		{"as many killed as may fail", 1, func(x *chaos, _ *harness.Server) { x.killTogether((len(x.c.Servers)-1)/2, true) }},
		{"replaced", 2, (*chaos).replace},
	}
}

// fault does one bad thing, lets it last, and mends it.
func (x *chaos) fault() {
	i := x.random.IntN(len(x.c.Servers))
	if x.random.IntN(2) == 0 {
		if lead := x.leading(); lead >= 0 {
			i = lead
		}
	}
	sum := 0
	for _, f := range x.faults {
		sum += f.weight
	}
	k := x.random.IntN(sum)
	for _, f := range x.faults {
		if k -= f.weight; k < 0 {
			x.done[f.name]++
			f.do(x, x.c.Servers[i])
			break
		}
	}
	time.Sleep(time.Duration(x.random.IntN(800)) * time.Millisecond)
}

func (x *chaos) lasts() { time.Sleep(time.Duration(100+x.random.IntN(1500)) * time.Millisecond) }

// killTogether ends n servers at the same time and starts them again at the same time.
func (x *chaos) killTogether(n int, last bool) {
	down := x.random.Perm(len(x.c.Servers))[:n]
	for _, i := range down {
		x.c.Servers[i].Kill()
	}
	if last {
		x.lasts()
	}
	var restarts sync.WaitGroup
	for _, i := range down {
		restarts.Go(func() { x.c.Servers[i].Restart(x.t) })
	}
	restarts.Wait()
}

// replace wipes a server, removes its member, and lets a new member begin in its place.
func (x *chaos) replace(s *harness.Server) {
	t := x.t
	id, rest := s.MemberID(t), x.c.Client(t, x.c.Others(s)...)
	s.Kill()
	s.Wipe(t)
	x.until("the member is removed", func() error {
		_, err := rest.MemberRemove(t.Context(), id)
		if errors.Is(err, rpctypes.ErrMemberNotFound) { // by an earlier try whose answer was lost
			return nil
		}
		return err
	})
	url := x.c.PeerURL(s)
	x.until("the new member is added", func() error {
		_, err := rest.MemberAdd(t.Context(), []string{url})
		if errors.Is(err, rpctypes.ErrPeerURLExist) {
			return nil
		}
		return err
	})
	x.c.Anew(t, s)
}

// until tries again until something succeeds, as an operator does.
func (x *chaos) until(what string, try func() error) {
	x.t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	x.t.Fatalf("not reached that %s: %v", what, err)
}
