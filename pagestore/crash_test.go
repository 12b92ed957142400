package pagestore

import (
	"fmt"
	"testing"

	"quire/disk"
)

// TestPowerCut cuts the power at every operation of a random workload, with a
// random choice of what survives, and checks what recovery finds; cuts the power
// again during some of the recoveries; and of each twentieth seed goes on from one
// of the images, three lives deep. In between, processes are killed without a
// power cut.
func TestPowerCut(t *testing.T) {
	total := make(chan int, 1)
	total <- 0
	eachSeed(t, 2000, func(seed uint64) error {
		n, err := powerCuts(seed)
		total <- n + <-total
		return err
	})
	t.Logf("%d images of cut power", <-total)
}

func powerCuts(seed uint64) (images int, err error) {
	w := newWorld(seed, disk.NewMem(seed))
	lives, steps := 1, 9
	if seed%20 == 0 {
		lives, steps = 3, 25
	}
	for life := range lives {
		var kept *disk.Mem
		var keptOutcomes []outcome
		w.onImage = func(img *disk.Mem, choice disk.CrashChoice, possible []outcome) error {
			if w.rng.IntN(10) == 0 || kept == nil {
				kept, keptOutcomes = img.Clone(seed), append([]outcome(nil), possible...)
			}
			return w.checkImage(img, choice, possible, 2)
		}
		w.watch()
		if err := w.start(); err != nil {
			return w.images, fmt.Errorf("life %d: start: %w", life, err)
		}
		if err := w.run(steps); err != nil {
			return w.images, fmt.Errorf("life %d: %w", life, err)
		}
		w.disk.OnOp(nil)
		w.disk, w.possible = kept, keptOutcomes
	}
	return w.images, nil
}

// checkImage recovers an image; sometimes, and mostly after the death of the
// process only, it cuts the power at each operation of that, too. What was
// recovered once must be what is recovered again.
func (w *world) checkImage(img *disk.Mem, choice disk.CrashChoice, possible []outcome, depth int) error {
	if depth > 0 && (w.rng.IntN(20) == 0 || choice.Process && w.rng.IntN(2) == 0) {
		var inner error
		img.OnOp(func(op int) {
			if inner != nil {
				return
			}
			w.images++
			choice := disk.CrashChoice{Seed: w.rng.Uint64(), Fate: disk.Fate(w.rng.IntN(4)), Strict: w.rng.IntN(2) == 0, Process: w.rng.IntN(8) == 0}
			if err := w.checkImage(img.Crash(choice), choice, possible, depth-1); err != nil {
				inner = fmt.Errorf("power cut in recovery, operation %d, %+v: %w", op, choice, err)
			}
		})
		defer img.OnOp(nil)
		found, _, _, err := recovered(img, w.opts, possible, w.size)
		if inner != nil {
			return inner
		}
		if err != nil {
			return err
		}
		possible = []outcome{found}
		img.OnOp(nil)
	}
	found, _, s, err := recovered(img, w.opts, possible, w.size)
	if err != nil {
		return err
	}
	return noStrays(img, s, found)
}

// noStrays checks that exactly the files of the checkpoint are left.
func noStrays(m *disk.Mem, s *Store, found outcome) error {
	want := 2 + len(s.list())
	if s.committing.last.state.fileName() != "" {
		want++
	}
	infos, err := m.List("")
	if err == nil && len(infos) != want {
		err = fmt.Errorf("%d files, want %d: %v", len(infos), want, infos)
	}
	return err
}
