package simulation

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"
	"testing/cryptotest"
	"time"
)

var (
	simSeeds = flag.Int("sim.seeds", 2000, "seeds of the cluster simulation; with -short a twentieth")
	simSeed  = flag.Uint64("sim.seed", 0, "run only this seed, with a trace")
	simFirst = flag.Uint64("sim.first", 1, "first seed")
	simSteps = flag.Int("sim.steps", 1500, "steps per seed before everything is repaired")
	simLimit = flag.Duration("sim.limit", 5*time.Minute, "seeds that have not begun by then are left out, unless -sim.seeds asks for a number of them; 0: none")
	simPart  = flag.Bool("sim.part", false, "this process was started by another one, which wants the numbers")
)

func runSeed(t *testing.T, seed uint64, trace func(string)) (Stats, error) {
	cryptotest.SetGlobalRandom(t, seed) // raft draws election timeouts from it
	return Run(Options{Seed: seed, Steps: *simSteps, Trace: trace})
}

// TestSimulation runs many seeds, on all processors: in a process each, because
// raft's random source is the process's.
func TestSimulation(t *testing.T) {
	seeds := *simSeeds
	if testing.Short() {
		seeds = max(seeds/20, 1)
	}
	switch {
	case *simSeed != 0:
		stats, err := runSeed(t, *simSeed, func(line string) { t.Log(line) })
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", stats)
	case *simPart:
		runSome(t)
	default:
		flag.Visit(func(f *flag.Flag) {
			if f.Name == "sim.seeds" {
				*simLimit = 0 // so many were asked for
			}
		})
		sum := runParts(t, seeds)
		t.Logf("%d of %d seeds: %+v", sum.Seeds, seeds, sum)
	}
}

const numbers = "simulated: "

// runSome runs seeds one after the other and prints the numbers.
func runSome(t *testing.T) {
	var sum Stats
	began := time.Now()
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ {
		if *simLimit > 0 && time.Since(began) > *simLimit {
			break
		}
		stats, err := runSeed(t, seed, nil)
		if err != nil {
			t.Fatalf("%v\nreplay: go test ./cmd/quire/simulation -run 'TestSimulation$' -sim.steps=%d -sim.seed=%d", err, *simSteps, seed)
		}
		sum.add(stats)
	}
	b, err := json.Marshal(sum)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s%s\n", numbers, b)
}

// runParts shares the seeds out among processes and adds their numbers up.
func runParts(t *testing.T, seeds int) (sum Stats) {
	parts := min(runtime.GOMAXPROCS(0), seeds)
	var group sync.WaitGroup
	var mu sync.Mutex
	for part := range parts {
		first := *simFirst + uint64(seeds*part/parts)
		n := seeds*(part+1)/parts - seeds*part/parts
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSimulation$", "-sim.part",
			fmt.Sprint("-sim.first=", first), fmt.Sprint("-sim.seeds=", n), fmt.Sprint("-sim.steps=", *simSteps), fmt.Sprint("-sim.limit=", *simLimit))
		group.Go(func() {
			out, err := cmd.CombinedOutput()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("%v\n%s", err, out)
				return
			}
			_, line, _ := bytes.Cut(out, []byte(numbers))
			line, _, _ = bytes.Cut(line, []byte("\n"))
			var stats Stats
			if err := json.Unmarshal(line, &stats); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			sum.add(stats)
		})
	}
	group.Wait()
	return sum
}

func TestDeterminism(t *testing.T) {
	for seed := uint64(1); seed <= 10; seed++ {
		a, err := runSeed(t, seed, nil)
		b, err2 := runSeed(t, seed, nil)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if a.Hash != b.Hash {
			t.Errorf("seed %d gave the traces %x and %x", seed, a.Hash, b.Hash)
		}
	}
}
