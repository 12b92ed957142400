package report

import (
	"html/template"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"

	"quire/tools/bench/result"
	"quire/tools/bench/versus"
)

const (
	smallWidth  vg.Length = 330
	smallHeight vg.Length = 200
)

// distribution shows the latency of every round over the percentiles; the
// median round is drawn strong.
func distribution(p versus.Pair) (template.HTML, error) {
	title := p.Spec.Label()
	pl := newPlot(title)
	pl.X.Label.Text, pl.Y.Label.Text = "percentile", "µs"
	pl.X.Tick.Marker = ninesTicks{}
	pl.Y.Scale, pl.Y.Tick.Marker = plot.LogScale{}, logTicks{}
	pl.Add(fullGrid())
	drawn := false
	for side := range p.Results {
		strong := p.MedianRound(side)
		for i, r := range p.Results[side] {
			points := curve(r.Latency)
			if len(points) < 2 {
				continue
			}
			if err := addLine(pl, points, sideColor[side], i == strong); err != nil {
				return "", err
			}
			drawn = true
		}
	}
	if !drawn {
		return "", nil
	}
	pl.X.Min = 0
	pl.Y.Min, pl.Y.Max = padded(pl.Y.Min, pl.Y.Max)
	return render(pl, smallWidth, smallHeight, "latency distribution of "+title)
}

// curve places the percentiles; the maximum stands one half step behind the
// last percentile that was measured.
func curve(l result.Latency) plotter.XYs {
	var points plotter.XYs
	last := 0.0
	for _, c := range l.Curve {
		if c.Percentile < 100 {
			last = ninesPosition(c.Percentile, math.Inf(1))
		}
		if c.Micros <= 0 {
			continue
		}
		points = append(points, plotter.XY{X: ninesPosition(c.Percentile, last+0.5), Y: c.Micros})
	}
	return points
}

// timeline shows the operations per second over the median round of each side,
// warm-up included, so that a pause is seen.
func timeline(p versus.Pair) (template.HTML, error) {
	title := p.Spec.Label()
	pl := newPlot(title)
	pl.X.Label.Text, pl.Y.Label.Text = "s", "operations per second"
	pl.Y.Tick.Marker = linearTicks{}
	pl.Add(fullGrid())
	drawn := false
	for side := range p.Results {
		i := p.MedianRound(side)
		if i < 0 {
			continue
		}
		var points plotter.XYs
		for _, s := range p.Results[side][i].Series {
			points = append(points, plotter.XY{X: s.Seconds, Y: s.OpsPerSecond})
		}
		if len(points) < 2 {
			continue
		}
		if err := addLine(pl, points, sideColor[side], true); err != nil {
			return "", err
		}
		drawn = true
	}
	if !drawn {
		return "", nil
	}
	pl.X.Min, pl.Y.Min = 0, 0
	pl.Y.Max *= 1.1
	return render(pl, smallWidth, smallHeight, "operations per second over time, "+title)
}

// linearTicks are gonum's, labelled briefly.
type linearTicks struct{}

// Ticks implements plot.Ticker.
func (linearTicks) Ticks(low, high float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(low, high)
	for i := range ticks {
		if ticks[i].Label != "" {
			ticks[i].Label = brief(ticks[i].Value)
		}
	}
	return ticks
}

func addLine(p *plot.Plot, points plotter.XYs, c color.NRGBA, strong bool) error {
	line, err := plotter.NewLine(points)
	if err != nil {
		return err
	}
	line.Color, line.Width = faint(c), 0.7
	if strong {
		line.Color, line.Width = c, 1.6
	}
	p.Add(line)
	return nil
}
