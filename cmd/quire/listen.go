package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"quire/socket"
)

// listeners are the open sockets of one flag's URLs.
type listeners struct {
	flag string
	open []*endpoint
}

// endpoint is one open socket. Two URLs may share it, one with TLS and one without.
type endpoint struct {
	net.Listener
	network, address string // what was asked for
	plain, secure    bool
}

// place returns what a URL asks to listen on: host:port, or for unix the path
// made of what follows the slashes, relative to the working directory.
func place(u url.URL) (network, address string) {
	if isUnix(u) {
		return "unix", u.Host + u.Path
	}
	return "tcp", u.Host
}

// listenAll opens every URL or none.
func listenAll(flag string, urls urlList, cfg *Config, log *zap.Logger) (*listeners, error) {
	l := &listeners{flag: flag}
	for _, u := range urls {
		network, address := place(u)
		i := slices.IndexFunc(l.open, func(e *endpoint) bool { return e.network == network && e.address == address })
		if i < 0 {
			lis, err := listen(network, address, cfg)
			if err != nil {
				l.close()
				return nil, fmt.Errorf("--%s: %w", flag, err)
			}
			i = len(l.open)
			l.open = append(l.open, &endpoint{Listener: &guardedListener{Listener: lis, log: log}, network: network, address: address})
		}
		if isSecure(u) {
			l.open[i].secure = true
		} else {
			l.open[i].plain = true
		}
	}
	return l, nil
}

func (l *listeners) close() {
	for _, e := range l.open {
		_ = e.Close()
	}
}

func listen(network, address string, cfg *Config) (net.Listener, error) {
	if network == "unix" {
		return listenUnix(address)
	}
	lc := net.ListenConfig{Control: socketOptions(cfg)}
	return lc.Listen(context.Background(), network, address)
}

// listenUnix replaces a socket file that a process left behind when it was
// killed, but not one on which somebody listens.
func listenUnix(path string) (net.Listener, error) {
	lis, err := net.Listen("unix", path)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return lis, err
	}
	if conn, derr := net.Dial("unix", path); derr == nil {
		_ = conn.Close()
		return nil, err
	}
	if rerr := os.Remove(path); rerr != nil {
		return nil, errors.Join(err, rerr)
	}
	return net.Listen("unix", path)
}

func socketOptions(cfg *Config) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var err error
		set := func(fd uintptr) {
			if cfg.ReusePort {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
			if err == nil && cfg.ReuseAddress {
				err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			}
		}
		return errors.Join(c.Control(set), err)
	}
}

// reservedDescriptors are kept from clients, as in etcd: log and store must be
// able to open files however many connections come. Under a small limit it is
// half of it.
const reservedDescriptors = 150

// guardedListener refuses connections when descriptors run short. The kernel
// gives out the lowest free number, so a high one tells that the lower ones are
// taken: no counting, nothing to pay while a connection lives.
type guardedListener struct {
	net.Listener
	log    *zap.Logger
	warned atomic.Int64 // second of the last warning
}

// Accept implements net.Listener.
func (g *guardedListener) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !scarce(conn) {
			return socket.Wrap(conn), nil
		}
		_ = conn.Close()
		if now := time.Now().Unix(); g.warned.Swap(now) != now {
			g.log.Warn("refusing connections: file descriptors run short", zap.String("address", g.Addr().String()))
		}
	}
}

// scarce tells whether conn has one of the reserved descriptors.
func scarce(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	high := false
	err = raw.Control(func(fd uintptr) {
		var limit unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
			high = uint64(fd) >= limit.Cur-min(reservedDescriptors, limit.Cur/2)
		}
	})
	return err == nil && high
}
