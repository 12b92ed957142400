package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// keyDir holds a pair of each kind of key, made once.
type keyDir struct{ dir string }

func newKeyDir(t testing.TB) keyDir {
	t.Helper()
	k := keyDir{t.TempDir()}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k.put(t, "rsa", r, &r.PublicKey)
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521(), "other": elliptic.P256()} {
		e, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		k.put(t, name, e, &e.PublicKey)
	}
	pub, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k.put(t, "ed", ed, pub)
	k.write(t, "secret", []byte("a secret of some length"))
	k.write(t, "rubbish", []byte("rubbish"))
	k.write(t, "empty", nil)
	return k
}

func (k keyDir) path(name string) string { return filepath.Join(k.dir, name) }

func (k keyDir) write(t testing.TB, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(k.path(name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (k keyDir) put(t testing.TB, name string, private, pub any) {
	t.Helper()
	b, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	k.write(t, name+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
	if b, err = x509.MarshalPKIXPublicKey(pub); err != nil {
		t.Fatal(err)
	}
	k.write(t, name+".pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b}))
}

// spec makes "jwt,sign-method=M,..." of "priv-key=rsa.key" and the like.
func (k keyDir) spec(method string, opts ...string) string {
	s := "jwt,sign-method=" + method
	for _, o := range opts {
		name, value, _ := strings.Cut(o, "=")
		if strings.HasSuffix(name, "-key") {
			value = k.path(value)
		}
		s += "," + name + "=" + value
	}
	return s
}

func TestJWTMethods(t *testing.T) {
	k := newKeyDir(t)
	for method, key := range map[string]string{
		"RS256": "rsa", "RS384": "rsa", "RS512": "rsa", "PS256": "rsa", "PS384": "rsa", "PS512": "rsa",
		"ES256": "p256", "ES384": "p384", "ES512": "p521", "EdDSA": "ed",
	} {
		signer := mustNew(t, k.spec(method, "priv-key="+key+".key", "pub-key="+key+".pub"))
		alone := mustNew(t, k.spec(method, "priv-key="+key+".key"))
		verifier := mustNew(t, k.spec(method, "pub-key="+key+".pub"))
		token, err := signer.Sign("ann", 12)
		if err != nil {
			t.Fatalf("%s: %v", method, err)
		}
		for name, p := range map[string]Provider{"signer": signer, "signer without public key": alone, "verifier": verifier} {
			for range 2 { // the second time from memory
				id, ok := p.Identify(context.Background(), token, 99)
				if !ok || id.User != "ann" || id.Revision != 12 || !id.Known {
					t.Errorf("%s, %s: %+v %v", method, name, id, ok)
				}
			}
		}
		if _, err := verifier.Sign("ann", 12); !errors.Is(err, ErrVerifyOnly) {
			t.Errorf("%s: signing with a public key: %v", method, err)
		}
		if _, ok := verifier.Identify(context.Background(), token[:len(token)-4]+"AAAA", 99); ok {
			t.Errorf("%s: a wrong signature is good", method)
		}
	}
	for _, method := range []string{"HS256", "HS384", "HS512"} {
		p := mustNew(t, k.spec(method, "priv-key=secret"))
		token, err := p.Sign("ann", 3)
		if id, ok := p.Identify(context.Background(), token, 99); err != nil || !ok || id.User != "ann" || id.Revision != 3 {
			t.Errorf("%s: %+v %v %v", method, id, ok, err)
		}
	}
}

func mustNew(t testing.TB, spec string) Provider {
	t.Helper()
	p, err := New(Options{Spec: spec})
	if err != nil {
		t.Fatalf("%s: %v", spec, err)
	}
	if p.Logged() {
		t.Fatalf("%s: goes through the log", spec)
	}
	return p
}

// TestForeignJWT is tokens that are well signed or not and that must not count,
// those of #15676 (without user name) among them.
func TestForeignJWT(t *testing.T) {
	k := newKeyDir(t)
	p := mustNew(t, k.spec("RS256", "priv-key=rsa.key")).(*JWT)
	hour := time.Now().Add(time.Hour).Unix()
	good := jwt.MapClaims{"username": "ann", "revision": 5, "exp": hour}
	signed := func(c jwt.MapClaims) string {
		token, err := jwt.NewWithClaims(p.method, c).SignedString(p.sign)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, good).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	// The public key as the secret of another method, which is no secret.
	pub, err := os.ReadFile(k.path("rsa.pub"))
	if err != nil {
		t.Fatal(err)
	}
	confused, err := jwt.NewWithClaims(jwt.SigningMethodHS256, good).SignedString(pub)
	if err != nil {
		t.Fatal(err)
	}
	for what, token := range map[string]string{
		"empty": "", "rubbish": "a.b.c", "simple": "abcdefghijklmnop.7", "alg none": none, "another alg": confused,
		"no user":            signed(jwt.MapClaims{"revision": 5, "exp": hour}),
		"user is a number":   signed(jwt.MapClaims{"username": 5, "revision": 5, "exp": hour}),
		"no revision":        signed(jwt.MapClaims{"username": "ann", "exp": hour}),
		"revision is text":   signed(jwt.MapClaims{"username": "ann", "revision": "5", "exp": hour}),
		"over":               signed(jwt.MapClaims{"username": "ann", "revision": 5, "exp": time.Now().Add(-time.Minute).Unix()}),
		"not yet":            signed(jwt.MapClaims{"username": "ann", "revision": 5, "exp": hour, "nbf": time.Now().Add(time.Minute).Unix()}),
		"expiry is nonsense": signed(jwt.MapClaims{"username": "ann", "revision": 5, "exp": "tomorrow"}),
	} {
		if id, ok := p.Identify(context.Background(), token, 9); ok {
			t.Errorf("%s: believed as %+v", what, id)
		}
	}
	for revision, want := range map[float64]uint64{-1: 0, 0: 0, 7.9: 7, 1e300: 0} {
		token := signed(jwt.MapClaims{"username": "ann", "revision": revision})
		if id, ok := p.Identify(context.Background(), token, 9); !ok || id.Revision != want {
			t.Errorf("revision %v: %+v %v", revision, id, ok)
		}
	}
}

// A token that was good is over when its time is, remembered or not.
func TestRememberedJWTExpires(t *testing.T) {
	k := newKeyDir(t)
	p := mustNew(t, k.spec("EdDSA", "priv-key=ed.key", "ttl=1s"))
	token, err := p.Sign("ann", 1)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for ok := true; ok; _, ok = p.Identify(context.Background(), token, 1) {
		if time.Now().After(deadline) {
			t.Fatal("does not end")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestRememberedJWTsAreBounded(t *testing.T) {
	k := newKeyDir(t)
	p := mustNew(t, k.spec("HS256", "priv-key=secret")).(*JWT)
	for i := range maxKnown + 50 {
		token, err := p.Sign("ann", uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := p.Identify(context.Background(), token, 1); !ok {
			t.Fatal("not believed")
		}
		if n := len(p.known.claims); n > maxKnown {
			t.Fatalf("%d remembered", n)
		}
	}
}

func TestOptions(t *testing.T) {
	k := newKeyDir(t)
	for spec, want := range map[string]error{
		"simple":                            nil,
		"":                                  nil,
		"unknown":                           ErrInvalidOptions,
		"simple,":                           ErrInvalidOptions,
		"jwt":                               ErrInvalidOptions,
		"jwt,sign-method":                   ErrInvalidOptions,
		"jwt,sign-method=a=b":               ErrInvalidOptions,
		k.spec("RS256", "ttl=1s", "ttl=2s"): ErrInvalidOptions,
		k.spec("RS999", "priv-key=rsa.key"): ErrInvalidOptions,
		k.spec("RS256", "priv-key=missing"): ErrInvalidOptions,
		k.spec("RS256", "pub-key=missing"):  ErrInvalidOptions,
		k.spec("RS256", "priv-key=rsa.key", "ttl=soon"): ErrInvalidOptions,
		k.spec("RS256"):                    ErrMissingKey,
		k.spec("ES256"):                    ErrMissingKey,
		k.spec("EdDSA"):                    ErrMissingKey,
		k.spec("HS256"):                    ErrMissingKey,
		k.spec("HS256", "priv-key=empty"):  ErrMissingKey,
		k.spec("HS256", "pub-key=rsa.pub"): ErrMissingKey,
		k.spec("ES256", "priv-key=p256.key", "pub-key=other.pub"): ErrKeyMismatch,
		k.spec("RS256", "priv-key=rsa.key", "unheard-of=1"):       nil,
	} {
		if _, err := New(Options{Spec: spec}); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", strings.ReplaceAll(spec, k.dir, ""), err, want)
		}
	}
	for _, spec := range []string{k.spec("RS256", "priv-key=rubbish"), k.spec("RS256", "pub-key=rubbish"), k.spec("EdDSA", "priv-key=rsa.key"), k.spec("none", "priv-key=secret")} {
		if _, err := New(Options{Spec: spec}); err == nil {
			t.Errorf("%s is accepted", strings.ReplaceAll(spec, k.dir, ""))
		}
	}
}

func TestNone(t *testing.T) {
	p, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	p.Issued(1, "ann", "a.1")
	if _, ok := p.Identify(context.Background(), "a.1", 1); ok {
		t.Error("believes something")
	}
	if _, err := p.Sign("ann", 1); err == nil {
		t.Error("hands something out")
	}
}

func FuzzJWT(f *testing.F) {
	k := newKeyDir(f)
	p := mustNew(f, k.spec("HS256", "priv-key=secret")).(*JWT)
	// Without a time, so that every process of the fuzzer makes the same.
	token, err := jwt.NewWithClaims(p.method, jwt.MapClaims{"username": "ann", "revision": 1}).SignedString(p.sign)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(token)
	f.Add("a.b.c")
	f.Fuzz(func(t *testing.T, s string) {
		if id, ok := p.Identify(context.Background(), s, 1); ok && s != token {
			t.Errorf("%q is believed as %+v", s, id)
		}
		indexOf(s)
	})
}

func BenchmarkIdentifyJWT(b *testing.B) {
	k := newKeyDir(b)
	p := mustNew(b, k.spec("RS256", "priv-key=rsa.key"))
	token, err := p.Sign("ann", 1)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := p.Identify(context.Background(), token, 1); !ok {
			b.Fatal("not believed")
		}
	}
}
