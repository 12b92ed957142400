package rpc

import (
	"context"
	"math"
	"sync"

	"quire/engine"
	"quire/engine/auth"
)

// watchRights is what one Watch stream may watch. A watcher is checked when it
// is made, as in etcd, and again whenever users, roles or permissions change,
// which etcd does not do: who loses a right, the password or the user's name,
// or has never shown any while authentication was off, loses the watchers too.
// That a token has run out in the meantime does not matter: it was good when the
// watcher was made.
type watchRights struct {
	stream *Stream

	mu struct {
		sync.Mutex
		id   auth.Identity // of the last watcher that was permitted; zero: nobody's
		cert bool          // told by a certificate, so no password is behind it
	}
}

// permit checks the creation of a watcher.
func (w *watchRights) permit(key, rangeEnd []byte) error {
	s := w.stream.srv
	if s.cfg.Space.Divergent() {
		return watchReason(engine.ErrCorrupt)
	}
	id, err := s.identify(w.stream.Ctx)
	if err != nil {
		return watchReason(err)
	}
	acc := s.cfg.Auth.Access(id)
	if err := acc.Read(key, rangeEnd); err != nil {
		return watchReason(err)
	}
	if id.Known {
		_, token := tokenOf(w.stream.Ctx)
		w.mu.Lock()
		w.mu.id, w.mu.cert = id, !token
		w.mu.Unlock()
	}
	return nil
}

// keep returns the check of what may stay, nil if everything may.
func (w *watchRights) keep() func(key, rangeEnd []byte) error {
	s := w.stream.srv
	if s.cfg.Space.Divergent() {
		return func([]byte, []byte) error { return watchReason(engine.ErrCorrupt) }
	}
	if !s.cfg.Auth.Enabled() {
		return nil
	}
	w.mu.Lock()
	id, cert := w.mu.id, w.mu.cert
	w.mu.Unlock()
	if !id.Known {
		// The watchers are of a time without authentication. Nothing is waited for.
		ctx, cancel := context.WithCancel(w.stream.Ctx)
		cancel()
		var err error
		if id, err = s.identify(ctx); err != nil {
			return func([]byte, []byte) error { return watchReason(err) }
		}
		_, token := tokenOf(w.stream.Ctx)
		cert = !token
	}
	if !cert && s.cfg.Auth.SecretSince(id.User) > id.Revision {
		return func([]byte, []byte) error { return watchReason(errInvalidAuthToken) }
	}
	if id.Known {
		id.Revision = math.MaxUint64 // what counts is who it is, and the rights of today
	}
	acc := s.cfg.Auth.Access(id)
	if acc.All() {
		return nil
	}
	return func(key, rangeEnd []byte) error { return watchReason(acc.Read(key, rangeEnd)) }
}
