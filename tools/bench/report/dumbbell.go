package report

import (
	"fmt"
	"html/template"
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"quire/tools/bench/result"
	"quire/tools/bench/versus"
)

// row is one line of a dumbbell plot: the values of both sides, one per round.
type row struct {
	label  string
	values [2][]float64
	median [2]float64
}

// wideWidth in points is about the width of the page.
const wideWidth vg.Length = 930

// dumbbell compares both sides on one logarithmic axis, one line per row: a
// large dot for each side's median, joined, and a small one for each round.
func dumbbell(title, axis string, rows []row) (template.HTML, error) {
	rows = drawable(rows)
	if len(rows) == 0 {
		return "", nil
	}
	p := newPlot("") // the page has the title above
	p.X.Label.Text = axis
	p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, logTicks{}
	p.Add(verticalGrid())
	p.X.Min, p.X.Max = math.Inf(1), math.Inf(-1)
	var labels []string
	for i := range rows {
		y := float64(len(rows) - 1 - i) // the first row on top
		if err := addRow(p, rows[i], y); err != nil {
			return "", fmt.Errorf("%s, %s: %w", title, rows[i].label, err)
		}
		labels = append(labels, rows[len(rows)-1-i].label)
	}
	p.NominalY(labels...)
	p.X.Min, p.X.Max = padded(p.X.Min, p.X.Max)
	p.Y.Min, p.Y.Max = -0.6, float64(len(rows))-0.4
	p.Y.LineStyle.Width, p.Y.Tick.LineStyle.Width = 0, 0
	return render(p, wideWidth, vg.Length(40+20*len(rows)), alternative(title, rows))
}

// drawable drops rows without a positive median: a logarithmic axis has no
// place for them.
func drawable(rows []row) []row {
	var out []row
	for _, r := range rows {
		if r.median[versus.Quire] > 0 || r.median[versus.Upstream] > 0 {
			out = append(out, r)
		}
	}
	return out
}

// addRow draws one row at height y and widens the X axis to it.
func addRow(p *plot.Plot, r row, y float64) error {
	var ends plotter.XYs
	for side := range r.values {
		var points plotter.XYs
		for _, v := range r.values[side] {
			if v > 0 {
				points = append(points, plotter.XY{X: v, Y: y})
				p.X.Min, p.X.Max = min(p.X.Min, v), max(p.X.Max, v)
			}
		}
		if m := r.median[side]; m > 0 {
			ends = append(ends, plotter.XY{X: m, Y: y})
		}
		if err := addDots(p, points, faint(sideColor[side]), 1.6); err != nil {
			return err
		}
	}
	if len(ends) == 2 {
		line, err := plotter.NewLine(ends)
		if err != nil {
			return err
		}
		line.Color, line.Width = color.NRGBA{R: 0x99, G: 0x99, B: 0x99, A: 0xff}, 1
		p.Add(line)
	}
	for side, m := range r.median {
		if m > 0 {
			if err := addDots(p, plotter.XYs{{X: m, Y: y}}, sideColor[side], 3.5); err != nil {
				return err
			}
		}
	}
	return nil
}

func addDots(p *plot.Plot, points plotter.XYs, c color.NRGBA, radius vg.Length) error {
	if len(points) == 0 {
		return nil
	}
	s, err := plotter.NewScatter(points)
	if err != nil {
		return err
	}
	s.GlyphStyle = draw.GlyphStyle{Color: c, Radius: radius, Shape: draw.CircleGlyph{}}
	p.Add(s)
	return nil
}

// alternative says in words what the plot shows.
func alternative(title string, rows []row) string {
	text := title
	for _, r := range rows {
		text += fmt.Sprintf("; %s: quire %s, upstream %s", r.label, result.Short(r.median[versus.Quire]), result.Short(r.median[versus.Upstream]))
	}
	return text
}
