package workload

import (
	"context"
	"sort"

	"quire/tools/bench/loop"
)

// mixedStep draws each operation by its weight. A unit is the operation, also
// for a page, so that units stay comparable.
func mixedStep(w *worker) loop.Step {
	names := make([]string, 0, len(w.spec.Mix))
	for name := range w.spec.Mix {
		names = append(names, name)
	}
	sort.Strings(names) // the same draw means the same operation in every run
	var steps []loop.Step
	var until []int
	total := 0
	defs := table()
	for _, name := range names {
		total += w.spec.Mix[name]
		steps = append(steps, defs[name].step(w))
		until = append(until, total)
	}
	return func(ctx context.Context) (int64, error) {
		i := sort.SearchInts(until, w.rng.IntN(total)+1)
		_, err := steps[i](ctx)
		return 1, err
	}
}
