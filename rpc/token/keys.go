package token

import (
	"fmt"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The options of --auth-token=jwt.
const (
	optSignMethod = "sign-method" // as in the token's alg; required
	optPublicKey  = "pub-key"     // PEM file
	optPrivateKey = "priv-key"    // PEM file; the secret's file for HS*
	optTTL        = "ttl"         // a duration; default 5m
)

// keyFiles is what the options name, read but not looked at.
type keyFiles struct {
	method          jwt.SigningMethod
	public, private []byte
	ttl             time.Duration
}

func readKeys(opts map[string]string) (k keyFiles, err error) {
	k.ttl = defaultTTL
	if s := opts[optTTL]; s != "" {
		if k.ttl, err = time.ParseDuration(s); err != nil {
			return k, err
		}
	}
	if file := opts[optPublicKey]; file != "" {
		if k.public, err = os.ReadFile(file); err != nil {
			return k, err
		}
	}
	if file := opts[optPrivateKey]; file != "" {
		if k.private, err = os.ReadFile(file); err != nil {
			return k, err
		}
	}
	if k.method = jwt.GetSigningMethod(opts[optSignMethod]); k.method == nil {
		return k, ErrInvalidMethod
	}
	return k, nil
}

// keys returns the key to sign with, nil if there is only the public one, and
// the key to verify with.
func (k keyFiles) keys() (sign, verify any, err error) {
	switch k.method.(type) {
	case *jwt.SigningMethodHMAC:
		if len(k.private) == 0 {
			return nil, nil, ErrMissingKey
		}
		return k.private, k.private, nil
	case *jwt.SigningMethodRSA, *jwt.SigningMethodRSAPSS:
		return pair(k, jwt.ParseRSAPrivateKeyFromPEM, jwt.ParseRSAPublicKeyFromPEM)
	case *jwt.SigningMethodECDSA:
		return pair(k, jwt.ParseECPrivateKeyFromPEM, jwt.ParseECPublicKeyFromPEM)
	case *jwt.SigningMethodEd25519:
		return pair(k, jwt.ParseEdPrivateKeyFromPEM, jwt.ParseEdPublicKeyFromPEM)
	}
	return nil, nil, fmt.Errorf("unsupported signing method: %T", k.method)
}

// pair parses the keys of an asymmetric method; if both are given they must
// belong together.
func pair[S, P any](k keyFiles, parsePrivate func([]byte) (S, error), parsePublic func([]byte) (P, error)) (sign, verify any, err error) {
	if len(k.private) > 0 {
		key, err := parsePrivate(k.private)
		if err != nil {
			return nil, nil, err
		}
		sign, verify = key, public(key)
	}
	if len(k.public) > 0 {
		key, err := parsePublic(k.public)
		if err != nil {
			return nil, nil, err
		}
		if verify != nil && !verify.(equaler).Equal(key) {
			return nil, nil, ErrKeyMismatch
		}
		verify = key
	}
	if verify == nil {
		return nil, nil, ErrMissingKey
	}
	return sign, verify, nil
}
