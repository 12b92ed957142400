package certs

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// checkInterval is how often files are looked at, at most: six system calls a
// second are nothing, and a rotation by hand or by a controller does not mind a
// second.
const checkInterval = time.Second

// Options are what a Store needs beside its files.
type Options struct {
	// Endpoint is "client" or "peer": it appears in log lines and metrics.
	Endpoint string
	// Protos are the application protocols that a listener offers.
	Protos []string
	// Handshakes bounds how many are under way at once; 0: 2048, which is some
	// 50 MiB while all of them stall (25 KiB each).
	Handshakes int
	Logger     *zap.Logger
}

// Store keeps the material of one endpoint in force and up to date.
type Store struct {
	cfg      Config
	opts     Options
	log      *zap.Logger
	material atomic.Pointer[material]

	// The reload's own: whoever sets checking holds them.
	checking atomic.Bool
	due      atomic.Int64 // nanoseconds; when to look again
	stamps   []stamp
	settled  bool
	fault    string // the last one that was logged

	reloads, failures atomic.Uint64
	gate              *gate
	refusals          refusals
}

// Open reads the files and fails if any of them is missing or broken.
func Open(cfg Config, opts Options) (*Store, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.Handshakes == 0 {
		opts.Handshakes = 2048
	}
	s := &Store{cfg: cfg, opts: opts, log: opts.Logger, gate: newGate(opts.Handshakes)}
	s.stampFiles(time.Now())
	f, sums, err := load(&s.cfg)
	if err != nil {
		return nil, err
	}
	m, err := newMaterial(&s.cfg, f, sums, opts.Protos)
	if err != nil {
		return nil, err
	}
	s.material.Store(m)
	s.due.Store(time.Now().Add(checkInterval).UnixNano())
	return s, nil
}

// ServerConfig returns the configuration of a listener that is in force now.
// Take it anew for each connection; it must not be changed.
func (s *Store) ServerConfig() *tls.Config { return s.current().server }

// ClientConfig returns the configuration for dialing that is in force now.
// Take it anew for each connection; it must not be changed.
func (s *Store) ClientConfig() *tls.Config { return s.current().client }

// Dial connects to a server and shakes hands with what is in force now. It suits
// http.Transport.DialTLSContext.
func (s *Store) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := tls.Dialer{Config: s.ClientConfig()}
	return d.DialContext(ctx, network, address)
}

// current looks after the files if it is time to.
func (s *Store) current() *material {
	if now := time.Now(); now.UnixNano() >= s.due.Load() && s.checking.CompareAndSwap(false, true) {
		if now.UnixNano() >= s.due.Load() { // not done by another one meanwhile
			s.check(now)
			s.due.Store(time.Now().Add(checkInterval).UnixNano())
		}
		s.checking.Store(false)
	}
	return s.material.Load()
}

// stampFiles notes the files' stamps and reports whether they may have changed
// since they were noted before. It comes before reading, so that a change
// meanwhile is seen the next time.
func (s *Store) stampFiles(now time.Time) (changed bool) {
	var stamps []stamp
	settled := true
	_ = (&files{}).each(&s.cfg, func(path string, _ *content) error {
		st := stampOf(path)
		settled = settled && st.settled(now)
		stamps = append(stamps, st)
		return nil
	})
	changed = !s.settled || !slices.Equal(stamps, s.stamps)
	s.stamps, s.settled = stamps, settled
	return changed
}

// check loads the files again if they have changed.
func (s *Store) check(now time.Time) {
	if !s.stampFiles(now) {
		return
	}
	old := s.material.Load()
	f, sums, err := load(&s.cfg)
	if err == nil && slices.Equal(sums, old.sums) {
		s.fault = ""
		return
	}
	var m *material
	if err == nil {
		m, err = newMaterial(&s.cfg, f, sums, s.opts.Protos)
	}
	if err != nil {
		s.failed(err)
		return
	}
	s.fault = ""
	s.material.Store(m)
	s.reloads.Add(1)
	s.log.Info("reloaded TLS files", zap.String("endpoint", s.opts.Endpoint), zap.String("tls-info", s.cfg.String()),
		zap.Time("certificate-not-after", m.facts[0].ends))
}

// failed keeps what is in force.
func (s *Store) failed(err error) {
	if err.Error() == s.fault {
		return
	}
	s.fault = err.Error()
	s.failures.Add(1)
	s.log.Warn("cannot reload TLS files; those read before stay in force",
		zap.String("endpoint", s.opts.Endpoint), zap.Error(err))
}
