package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"

	"quire/engine/auth"
)

// JWT signs and verifies tokens with a key.
type JWT struct {
	method jwt.SigningMethod
	sign   any // nil: verify only
	verify any
	ttl    time.Duration
	log    *zap.Logger
	parser *jwt.Parser

	// known are tokens whose signature was good.
	known struct {
		sync.RWMutex
		claims map[string]claims
	}
}

// claims is what a verified token says.
type claims struct {
	user             string
	revision         uint64
	begins, ends     time.Time
	hasBegin, hasEnd bool
}

const (
	// maxKnown bounds the verified tokens that are remembered; past it all are
	// forgotten and verified anew.
	maxKnown = 1024
	// maxKnownBytes leaves out tokens of a size that nobody needs.
	maxKnownBytes = 4096
)

func newJWT(opts map[string]string, log *zap.Logger) (*JWT, error) {
	k, err := readKeys(opts)
	if err != nil {
		log.Error("problem loading JWT options", zap.Error(err))
		return nil, ErrInvalidOptions
	}
	for name := range opts {
		switch name {
		case optSignMethod, optPublicKey, optPrivateKey, optTTL:
		default:
			log.Warn("unknown JWT options", zap.String("key", name))
		}
	}
	t := &JWT{method: k.method, ttl: k.ttl, log: log}
	if t.sign, t.verify, err = k.keys(); err != nil {
		return nil, err
	}
	t.parser = jwt.NewParser(jwt.WithValidMethods([]string{t.method.Alg()}))
	t.known.claims = map[string]claims{}
	return t, nil
}

// Logged implements Provider.
func (t *JWT) Logged() bool { return false }

// Issued implements Provider.
func (t *JWT) Issued(uint64, string, string) {}

// Revoked implements Provider: the revision of the auth store makes old tokens
// useless.
func (t *JWT) Revoked(string) {}

// Sign implements Provider.
func (t *JWT) Sign(user string, revision uint64) (string, error) {
	if t.sign == nil {
		return "", ErrVerifyOnly
	}
	return jwt.NewWithClaims(t.method, jwt.MapClaims{
		"username": user,
		"revision": revision,
		"exp":      time.Now().Add(t.ttl).Unix(),
	}).SignedString(t.sign)
}

// Identify implements Provider. The revision is the token's own.
func (t *JWT) Identify(_ context.Context, token string, _ uint64) (auth.Identity, bool) {
	t.known.RLock()
	c, ok := t.known.claims[token]
	t.known.RUnlock()
	if !ok {
		var err error
		if c, err = t.parse(token); err != nil {
			t.log.Warn("failed to parse a JWT token", zap.Error(err))
			return auth.Identity{}, false
		}
		t.remember(token, c)
	} else if !c.valid(time.Now()) {
		t.log.Warn("failed to parse a JWT token", zap.Error(jwt.ErrTokenExpired))
		return auth.Identity{}, false
	}
	return auth.Identity{User: c.user, Revision: c.revision, Known: true}, true
}

func (c *claims) valid(now time.Time) bool {
	return (!c.hasEnd || now.Before(c.ends)) && (!c.hasBegin || !now.Before(c.begins))
}

func (t *JWT) remember(token string, c claims) {
	if len(token) > maxKnownBytes {
		return
	}
	t.known.Lock()
	defer t.known.Unlock()
	if len(t.known.claims) >= maxKnown {
		clear(t.known.claims)
	}
	t.known.claims[token] = c
}

var errClaims = errors.New("token has no user name or no revision")

// parse verifies the signature, the times and that the claims are there.
func (t *JWT) parse(token string) (c claims, err error) {
	parsed, err := t.parser.Parse(token, func(*jwt.Token) (any, error) { return t.verify, nil })
	if err != nil {
		return c, err
	}
	m, ok := parsed.Claims.(jwt.MapClaims)
	if !ok || !parsed.Valid {
		return c, errClaims
	}
	var revision float64
	var hasUser, hasRevision bool
	c.user, hasUser = m["username"].(string)
	revision, hasRevision = m["revision"].(float64)
	if !hasUser || !hasRevision {
		return c, errClaims
	}
	c.revision = toRevision(revision)
	if d, err := m.GetExpirationTime(); err == nil && d != nil {
		c.ends, c.hasEnd = d.Time, true
	}
	if d, err := m.GetNotBefore(); err == nil && d != nil {
		c.begins, c.hasBegin = d.Time, true
	}
	return c, nil
}

// toRevision converts a JSON number; what is out of range is no revision.
func toRevision(f float64) uint64 {
	if f < 0 || f >= math.MaxUint64 || math.IsNaN(f) {
		return 0
	}
	return uint64(f)
}

// public returns the key that verifies what key signs; a secret is its own.
func public(key any) any {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return &k.PublicKey
	case *ecdsa.PrivateKey:
		return &k.PublicKey
	case ed25519.PrivateKey:
		return k.Public()
	}
	return key
}

// equaler is what all public keys of the standard library are.
type equaler interface {
	Equal(crypto.PublicKey) bool
}
