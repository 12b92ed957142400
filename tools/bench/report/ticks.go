package report

import (
	"fmt"
	"math"
	"strconv"

	"gonum.org/v1/plot"
)

// logTicks marks 1, 2 and 5 in each power of ten, only powers of ten when the
// axis spans more than three of them.
type logTicks struct{}

// Ticks implements plot.Ticker.
func (logTicks) Ticks(low, high float64) []plot.Tick {
	steps := []float64{1, 2, 5}
	if high/low > 1000 {
		steps = steps[:1]
	}
	var ticks []plot.Tick
	for power := math.Floor(math.Log10(low)); power <= math.Ceil(math.Log10(high)); power++ {
		for _, s := range steps {
			v := s * math.Pow(10, power)
			if v >= low*0.999 && v <= high*1.001 {
				ticks = append(ticks, plot.Tick{Value: v, Label: brief(v)})
			}
		}
	}
	return ticks
}

// brief writes 1500 as 1.5k.
func brief(v float64) string {
	text := func(v float64) string { return strconv.FormatFloat(v, 'g', 3, 64) }
	switch {
	case v >= 1e6:
		return text(v/1e6) + "M"
	case v >= 1e3:
		return text(v/1e3) + "k"
	default:
		return text(v)
	}
}

// ninesPosition puts percentile p where each further nine is one step to the
// right: 0 → 0, 90 → 1, 99 → 2.
func ninesPosition(p, last float64) float64 {
	return min(-math.Log10(1-p/100), last)
}

// ninesTicks marks the percentiles of an axis of ninesPosition.
type ninesTicks struct{}

// Ticks implements plot.Ticker.
func (ninesTicks) Ticks(low, high float64) []plot.Tick {
	ticks := []plot.Tick{{Value: 0, Label: "0"}, {Value: -math.Log10(0.5), Label: "50"}}
	for n := 1.0; n <= high+1e-9; n++ {
		ticks = append(ticks, plot.Tick{Value: n, Label: fmt.Sprintf("%.*f", max(0, int(n)-2), 100-math.Pow(10, 2-n))})
	}
	return ticks
}

// padded widens a logarithmic range so that marks do not sit on its edges, and
// to at least a factor of four so that small differences look small.
func padded(low, high float64) (float64, float64) {
	if f := high / low; f < 4 {
		widen := math.Sqrt(4 / f)
		low, high = low/widen, high*widen
	}
	return low / 1.15, high * 1.15
}
