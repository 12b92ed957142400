package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// listeners are the open sockets of one flag's URLs.
type listeners struct {
	flag string
	open []net.Listener
}

// listenAll opens every URL or none.
func listenAll(flag string, urls urlList, cfg *Config) (*listeners, error) {
	l := &listeners{flag: flag}
	for i := range urls {
		lis, err := listen(urls[i], cfg)
		if err != nil {
			l.close()
			return nil, fmt.Errorf("--%s: %w", flag, err)
		}
		l.open = append(l.open, lis)
	}
	return l, nil
}

func (l *listeners) close() {
	for _, lis := range l.open {
		_ = lis.Close()
	}
}

// listen opens the socket that a URL names: host:port, or for unix the path
// made of what follows the slashes, relative to the working directory.
func listen(u url.URL, cfg *Config) (net.Listener, error) {
	if isUnix(u) {
		return listenUnix(u.Host + u.Path)
	}
	lc := net.ListenConfig{Control: socketOptions(cfg)}
	return lc.Listen(context.Background(), "tcp", u.Host)
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
