package token

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"quire/engine/auth"
)

// Provider is one kind of token.
type Provider interface {
	// Identify tells whose token it is; revision is the present one of the auth
	// store. It may wait a moment for the log, as long as ctx permits.
	Identify(ctx context.Context, token string, revision uint64) (id auth.Identity, ok bool)
	// Logged says that tokens are handed out through the log, beginning with
	// Prefix, and told to Issued; if not, Sign makes them.
	Logged() bool
	Sign(user string, revision uint64) (token string, err error)
	// Issued notes a token that was handed out at a log index.
	Issued(index uint64, user, token string)
	// Revoked voids the tokens of a user; "" means everybody's.
	Revoked(user string)
}

// The errors in etcd's words.
var (
	ErrInvalidOptions = errors.New("auth: invalid auth options")
	ErrInvalidMethod  = errors.New("auth: invalid auth signature method")
	ErrMissingKey     = errors.New("auth: missing key data")
	ErrKeyMismatch    = errors.New("auth: public and private keys don't match")
	ErrVerifyOnly     = errors.New("auth: token signing attempted with verify-only key")
)

// Options of New.
type Options struct {
	// Spec is --auth-token: "simple", "jwt,KEY=VALUE,...", or empty for no
	// tokens at all.
	Spec string
	// TTL of a simple token since its last use; 0 is five minutes.
	TTL time.Duration
	// Behind tells whether an operation at this log index may have been applied
	// elsewhere and not here; nil: never.
	Behind func(index uint64) bool
	Logger *zap.Logger
}

// New returns the kind that the options ask for.
func New(o Options) (Provider, error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	kind, opts, err := parseSpec(o.Spec)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "simple":
		o.Logger.Warn("simple token is not cryptographically signed")
		return NewTable(o.TTL, o.Behind), nil
	case "jwt":
		return newJWT(opts, o.Logger)
	case "":
		return None{}, nil
	}
	return nil, fmt.Errorf("%w: unknown token type %q", ErrInvalidOptions, kind)
}

// parseSpec takes "kind,key=value,..." apart. It shows no values: a mistyped one
// may be a secret.
func parseSpec(spec string) (kind string, opts map[string]string, err error) {
	parts := strings.Split(spec, ",")
	opts = map[string]string{}
	for i, part := range parts[1:] {
		pair := strings.Split(part, "=")
		if len(pair) != 2 {
			return "", nil, fmt.Errorf("%w: option %d is not key=value", ErrInvalidOptions, i+1)
		}
		if _, ok := opts[pair[0]]; ok {
			return "", nil, fmt.Errorf("%w: option %q is given twice", ErrInvalidOptions, pair[0])
		}
		opts[pair[0]] = pair[1]
	}
	return parts[0], opts, nil
}

// None is the kind that hands out nothing.
type None struct{}

// Identify implements Provider.
func (None) Identify(context.Context, string, uint64) (auth.Identity, bool) {
	return auth.Identity{}, false
}

// Logged implements Provider.
func (None) Logged() bool { return false }

// Sign implements Provider.
func (None) Sign(string, uint64) (string, error) { return "", auth.ErrAuthFailed }

// Issued implements Provider.
func (None) Issued(uint64, string, string) {}

// Revoked implements Provider.
func (None) Revoked(string) {}
