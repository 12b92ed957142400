package lockstep

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// TestAuth is TestLockstep for histories about users and rights. One run is with simple tokens, one with JWTs.
func TestAuth(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("a secret that both sides know"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tokens := range map[string]string{"simple": "simple", "jwt": "jwt,sign-method=HS256,priv-key=" + secret} {
		t.Run(name, func(t *testing.T) { authLockstep(t, name == "jwt", "--bcrypt-cost=4", "--auth-token="+tokens) })
	}
}

func authLockstep(t *testing.T, signed bool, flags ...string) {
	if *replay != "" {
		steps, err := read(*replay)
		if err != nil {
			t.Fatal(err)
		}
		if at, diff := runBoth(t, steps, flags...); diff != "" {
			t.Errorf("step %d: %v\n%s", at, steps[at], diff)
		}
		return
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("seed %d: go test ./lockstep -run %s -seed %d -requests %d", seed, t.Name(), seed, *requests)
	p, g := newPair(t, flags...), newAuthGenerator(seed, signed)
	var done []step
	counts, kinds := map[string]int{}, map[string]bool{}
	for range *requests / 2 { // as there are two kinds of tokens
		s := g.next()
		done = append(done, s)
		theirs, diff := p.do(t, s)
		if diff != "" && !*all {
			report(t, done, diff, flags...)
			return
		}
		if kind := kindOf(s, diff); diff != "" && !kinds[kind] {
			kinds[kind] = true
			t.Errorf("step %d: %.2000v\n%s", len(done)-1, s, diff)
		}
		g.learn(s, theirs)
		counts[s.method+" "+theirs.code]++
	}
	t.Log(counts)
}
