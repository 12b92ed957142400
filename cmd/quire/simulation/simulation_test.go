package simulation

import (
	"errors"
	"flag"
	"testing"
	"testing/cryptotest"
)

var (
	simSeeds = flag.Int("sim.seeds", 200, "seeds of the cluster simulation")
	simSeed  = flag.Uint64("sim.seed", 0, "run only this seed, with a trace")
	simFirst = flag.Uint64("sim.first", 1, "first seed")
	simSteps = flag.Int("sim.steps", 1500, "steps per seed before everything is repaired")
)

func runSeed(t *testing.T, seed uint64, trace func(string)) (Stats, error) {
	cryptotest.SetGlobalRandom(t, seed) // raft draws election timeouts from it
	return Run(Options{Seed: seed, Steps: *simSteps, Trace: trace})
}

func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		stats, err := runSeed(t, *simSeed, func(line string) { t.Log(line) })
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v", stats)
		return
	}
	var sum Stats
	for seed := *simFirst; seed < *simFirst+uint64(*simSeeds); seed++ {
		stats, err := runSeed(t, seed, nil)
		if err != nil {
			t.Fatalf("%v\nreplay: go test ./cmd/quire/simulation -run TestSimulation -sim.seed=%d", err, seed)
		}
		sum.add(stats)
	}
	t.Logf("%d seeds: %+v", *simSeeds, sum)
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
