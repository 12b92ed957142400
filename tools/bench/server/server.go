package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"quire/tools/bench/client"
	"quire/tools/bench/cpuset"
)

// Config is one server.
type Config struct {
	// Side is its name in messages: quire or upstream.
	Side   string
	Binary string
	// ParentDir is where its directory is made.
	ParentDir string
	// QuotaBytes is --quota-backend-bytes.
	QuotaBytes int64
	// Flags are added behind the common ones.
	Flags []string
	// CPUs are the processors it runs on; nil is all.
	CPUs cpuset.Set
}

// Server is one data directory and the process that serves it, if running.
type Server struct {
	cfg        Config
	dir        string
	clientAddr string
	peerAddr   string
	name       string
	cluster    string // --initial-cluster
	state      string // --initial-cluster-state

	cmd    *exec.Cmd
	exited chan error // holds the result of Wait, once
}

const (
	// readyLimit is generous: recovery of a large data directory counts too.
	readyLimit = 2 * time.Minute
	// stopLimit is how long a server may take after SIGTERM.
	stopLimit = 20 * time.Second
	// readyPause between two attempts limits the error of the start time.
	readyPause = 2 * time.Millisecond
	// logTail is how much of a log an error quotes.
	logTail = 2000
)

// New makes the directory and chooses ports.
func New(cfg Config) (*Server, error) {
	dir, err := os.MkdirTemp(cfg.ParentDir, "bench-"+cfg.Side+"-")
	if err != nil {
		return nil, fmt.Errorf("making the data directory of %s: %w", cfg.Side, err)
	}
	s := &Server{cfg: cfg, dir: dir}
	ports, err := freePorts(2)
	if err != nil {
		return nil, errors.Join(err, s.Remove())
	}
	s.clientAddr, s.peerAddr = ports[0], ports[1]
	s.name, s.state = "bench", "new"
	s.cluster = s.name + "=" + s.PeerURL()
	return s, nil
}

// freePorts asks the kernel for n loopback ports. Another process may take one
// before the server does; the start then fails and says so.
func freePorts(n int) ([]string, error) {
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		defer l.Close()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs, nil
}

// Addr is the client address.
func (s *Server) Addr() string { return s.clientAddr }

// PeerURL is where other members reach it.
func (s *Server) PeerURL() string { return "http://" + s.peerAddr }

// PID is the process id while the server runs.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// flags are the same for both sides.
func (s *Server) flags() []string {
	clientURL, peerURL := "http://"+s.clientAddr, s.PeerURL()
	return append([]string{
		"--name=" + s.name,
		"--data-dir=" + filepath.Join(s.dir, "data"),
		"--listen-client-urls=" + clientURL,
		"--advertise-client-urls=" + clientURL,
		"--listen-peer-urls=" + peerURL,
		"--initial-advertise-peer-urls=" + peerURL,
		"--initial-cluster=" + s.cluster,
		"--initial-cluster-state=" + s.state,
		fmt.Sprintf("--quota-backend-bytes=%d", s.cfg.QuotaBytes),
		"--log-level=warn",
	}, s.cfg.Flags...)
}

// Start starts the process and returns after the first linearizable read, with
// the time that this took.
func (s *Server) Start(ctx context.Context) (time.Duration, error) {
	began := time.Now()
	if err := s.launch(); err != nil {
		return 0, err
	}
	if err := s.await(ctx); err != nil {
		return 0, err
	}
	return time.Since(began), nil
}

// await waits until the server is ready; if it does not become so it is killed.
func (s *Server) await(ctx context.Context) error {
	if err := s.waitReady(ctx); err != nil {
		return errors.Join(s.failure(err), s.Kill())
	}
	return nil
}

// launch starts the process.
func (s *Server) launch() error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", s.cfg.Side, err)
	}
	defer log.Close()
	s.cmd = exec.Command(s.cfg.Binary, s.flags()...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cfg.CPUs.Start(s.cmd); err != nil {
		s.cmd = nil
		return fmt.Errorf("starting %s: %w", s.cfg.Side, err)
	}
	s.exited = make(chan error, 1)
	go func(cmd *exec.Cmd) { s.exited <- cmd.Wait() }(s.cmd)
	return nil
}

// waitReady reads linearizably until it works.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyLimit)
	defer cancel()
	go func() { // a server that has ended will not become ready
		select {
		case err := <-s.exited:
			s.exited <- err
			cancel()
		case <-ctx.Done():
		}
	}()
	pool, err := client.Open(ctx, client.Options{Endpoints: []string{s.clientAddr}, Conns: 1})
	if err != nil {
		return err
	}
	defer pool.Close()
	body, err := client.Append(nil, &pb.RangeRequest{Key: []byte("ready"), CountOnly: true})
	if err != nil {
		return err
	}
	for {
		var reply client.RangeReply
		err := client.Call(ctx, pool.Conn(0), pb.KV_Range_FullMethodName, body, &reply)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(readyPause)
	}
}

// Stop ends the process with SIGTERM, and with SIGKILL if that does not help.
func (s *Server) Stop() error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return errors.Join(s.failure(err), s.Kill())
	}
	select {
	case <-s.exited:
		s.cmd = nil
		return nil
	case <-time.After(stopLimit):
		return errors.Join(s.failure(fmt.Errorf("still runs %v after SIGTERM", stopLimit)), s.Kill())
	}
}

// Kill ends the process with SIGKILL, which leaves it no time to write
// anything.
func (s *Server) Kill() error {
	if s.cmd == nil {
		return nil
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return s.failure(err)
	}
	<-s.exited
	s.cmd = nil
	return nil
}

// Remove ends the process and deletes the directory.
func (s *Server) Remove() error {
	return errors.Join(s.Kill(), os.RemoveAll(s.dir))
}

// DiskSize is the sum over the data directory: what the files' sizes say, and
// what they occupy.
func (s *Server) DiskSize() (apparent, allocated int64, err error) {
	err = filepath.WalkDir(filepath.Join(s.dir, "data"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		apparent += info.Size()
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			allocated += st.Blocks * 512 // st_blocks is in units of 512 bytes on every filesystem
		}
		return nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("measuring the data of %s: %w", s.cfg.Side, err)
	}
	return apparent, allocated, nil
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "server.log") }

// failure adds the side and the end of the log to err.
func (s *Server) failure(err error) error {
	text, _ := os.ReadFile(s.logFile()) // the log is only an explanation
	if len(text) > logTail {
		text = text[len(text)-logTail:]
	}
	return fmt.Errorf("%s: %w; its log ends with:\n%s", s.cfg.Side, err, bytes.TrimSpace(text))
}

// Version is what the binary says of itself, one string for each line.
func Version(ctx context.Context, binary string) ([]string, error) {
	out, err := exec.CommandContext(ctx, binary, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("asking %s for its version: %w", filepath.Base(binary), err)
	}
	return strings.Split(strings.TrimSpace(string(out)), "\n"), nil
}
