package lockstep

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"quire/test/harness"
)

var (
	seedFlag    = flag.Uint64("seed", 0, "seed of the random history; 0 picks one")
	requests    = flag.Int("requests", 5000, "length of the random history")
	replay      = flag.String("replay", "", "file with a history to run instead of a random one")
	all         = flag.Bool("all", false, "do not stop at a difference; print one of each kind, unshortened")
	mangledFlag = flag.Int("mangled", 4, "how many in a hundred requests are damaged messages")
	shrinkLimit = flag.Duration("shrink", time.Minute, "how long to shorten a history that fails")
)

// TestLockstep is the one test of this package; see doc.go.
func TestLockstep(t *testing.T) {
	if *replay != "" {
		steps, err := read(*replay)
		if err != nil {
			t.Fatal(err)
		}
		if at, diff := runBoth(t, steps); diff != "" {
			t.Errorf("step %d: %v\n%s", at, steps[at], diff)
		}
		return
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64N(1 << 32)
	}
	t.Logf("seed %d: go test ./lockstep -seed %d -requests %d", seed, seed, *requests)
	p := newPair(t)
	g := newGenerator(seed)
	g.restarts, g.mangles = true, *mangledFlag
	var done []step
	counts, kinds := map[string]int{}, map[string]bool{}
	for range *requests {
		s := g.next()
		done = append(done, s)
		theirs, diff := p.do(t, s)
		if diff != "" && !*all {
			report(t, done, diff)
			return
		}
		if kind := kindOf(s, diff); diff != "" && !kinds[kind] {
			kinds[kind] = true
			t.Errorf("step %d: %.2000v\n%s", len(done)-1, s, diff)
		}
		g.learn(s, theirs)
		counts[s.method+" "+theirs.code]++
	}
	final := step{method: watchSync}
	if _, diff := p.do(t, final); diff != "" {
		report(t, append(done, final), diff)
	}
	t.Log(counts)
}

// TestHashOfKeysMadeAgain: a transaction that deletes up to the end and then puts a key of that range, which etcd permits
// by oversight, counts for HashKV as if that key were gone.
func TestHashOfKeysMadeAgain(t *testing.T) {
	for _, other := range []string{"", "A"} { // a key that is there in any case
		var steps []step
		for _, line := range []string{
			`Put key:"A"`, `Put key:"a" value:"1"`, `Put key:"k" value:"1"`, `Put key:"k" value:"2"`, `Compact revision:4 physical:true`,
			`HashKV`, `DeleteRange key:"A"`,
			`Txn success:{request_delete_range:{key:"a" range_end:"\x00"}} success:{request_put:{key:"k" value:"3"}}`,
			`HashKV`, `Put key:"k" value:"4"`, `HashKV`,
		} {
			if other != "" && strings.HasPrefix(line, "DeleteRange") {
				continue
			}
			s, err := parse(line)
			if err != nil {
				t.Fatal(err)
			}
			steps = append(steps, s)
		}
		if at, diff := runBoth(t, steps); diff != "" {
			t.Errorf("key %q, step %d: %v\n%s", other, at, steps[at], diff)
		}
	}
}

// pair is the server under test and upstream.
type pair struct{ ours, theirs *side }

func newPair(t *testing.T, flags ...string) *pair {
	t.Helper()
	flags = append(slices.Clone(fastElection), flags...)
	p := &pair{
		ours:   newSide(t, "the server under test", harness.Start(t, flags...)),
		theirs: newSide(t, "upstream", harness.StartUpstream(t, flags...)),
	}
	p.ours.meet(t)
	p.theirs.meet(t)
	return p
}

func (p *pair) stop() {
	p.ours.stop()
	p.theirs.stop()
}

// do runs a step on both and returns upstream's answer and the difference to it, if any.
func (p *pair) do(t *testing.T, s step) (theirs answer, diff string) {
	t.Helper()
	theirs = p.theirs.do(t, s)
	ours := p.ours.do(t, s)
	return theirs, difference(theirs, ours)
}

// difference is empty when both answers are the same.
func difference(theirs, ours answer) string {
	if theirs.code == broken || theirs.code != ours.code || theirs.text != ours.text {
		return fmt.Sprintf("upstream:  %s\nours:      %s", theirs, ours)
	}
	if d := cmp.Diff(theirs.responses, ours.responses, protocmp.Transform()); d != "" {
		return "upstream (-), ours (+):\n" + d
	}
	return ""
}

// runBoth runs a history on a fresh pair and returns the first step whose answers differ.
func runBoth(t *testing.T, steps []step, flags ...string) (at int, diff string) {
	t.Helper()
	p := newPair(t, flags...)
	defer p.stop()
	for i, s := range steps {
		if _, diff := p.do(t, s); diff != "" {
			return i, diff
		}
	}
	return 0, ""
}

// kindOf puts differences together that are alike but for numbers and keys.
func kindOf(s step, diff string) string {
	return s.method + regexp.MustCompile(`[0-9]+|"[^"]*"|[ \t\n]+|\.\.\..*`).ReplaceAllString(diff, "")
}

// report shortens a history that fails at its last step, and fails the test with it.
func report(t *testing.T, steps []step, diff string, flags ...string) {
	t.Helper()
	t.Errorf("step %d: %.2000v\n%s", len(steps)-1, steps[len(steps)-1], diff)
	deadline := time.Now().Add(*shrinkLimit)
	for size := len(steps) / 2; size > 0 && time.Now().Before(deadline); {
		shorter, d := without(t, steps, size, deadline, flags...)
		if len(shorter) < len(steps) {
			steps, diff = shorter, d
			size = min(size, max(1, len(steps)/2))
		} else {
			size /= 2
		}
	}
	var lines []string
	for _, s := range steps {
		lines = append(lines, s.String())
	}
	text := strings.Join(lines, "\n") + "\n"
	path := filepath.Join(os.TempDir(), fmt.Sprintf("lockstep-%d.txt", os.Getpid()))
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Error(err)
	}
	t.Errorf("shortened to %d steps, also in %s for -replay:\n%.8000s\n%s", len(steps), path, text, diff)
}

// without tries to leave out parts of a history; the last step stays. A shorter one has to fail, at whatever step.
func without(t *testing.T, steps []step, size int, deadline time.Time, flags ...string) (shorter []step, diff string) {
	t.Helper()
	for from := len(steps) - 1 - size; from > -size && time.Now().Before(deadline); from -= size {
		from := max(0, from)
		to := min(from+size, len(steps)-1)
		if from >= to {
			continue
		}
		candidate := append(append([]step{}, steps[:from]...), steps[to:]...)
		if at, d := runBoth(t, candidate, flags...); d != "" {
			steps, diff = candidate[:at+1], d
		}
	}
	return steps, diff
}
