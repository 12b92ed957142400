package report

import (
	"bytes"
	"fmt"
	"html/template"
	"image/color"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"quire/tools/bench/versus"
)

// The two sides' colours keep apart for colour-blind readers and in print.
var sideColor = [...]color.NRGBA{
	versus.Quire:    {R: 0x00, G: 0x5f, B: 0xa3, A: 0xff},
	versus.Upstream: {R: 0xd9, G: 0x6b, B: 0x00, A: 0xff},
}

var (
	gridColor = color.NRGBA{R: 0xdd, G: 0xdd, B: 0xdd, A: 0xff}
	inkColor  = color.NRGBA{R: 0x33, G: 0x33, B: 0x33, A: 0xff}
)

// faint is the colour of single rounds.
func faint(c color.NRGBA) color.NRGBA {
	c.A = 0x66
	return c
}

// fonts are those that the plot's letters were measured with, and what a
// browser may use in their place: all have the same widths.
const (
	measuredFont = "font-family:Liberation Sans"
	browserFonts = "font-family:'Liberation Sans',Arial,Helvetica,sans-serif"
)

// newPlot is an empty plot in the page's style.
func newPlot(title string) *plot.Plot {
	p := plot.New()
	family := font.Font{Typeface: "Liberation", Variant: "Sans"}
	size := func(f font.Font, points vg.Length) font.Font {
		f.Size = points
		return f
	}
	p.Title.Text = title
	p.Title.TextStyle.Font = size(family, 11)
	p.Title.Padding = 4
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Font = size(family, 9)
		axis.Tick.Label.Font = size(family, 9)
		axis.LineStyle.Color, axis.Tick.LineStyle.Color = inkColor, inkColor
		axis.Tick.Length = 3
	}
	p.Legend.TextStyle.Font = size(family, 9)
	return p
}

// render draws the plot as inline SVG that scales with the page; alt is its
// text for readers who do not see it.
func render(p *plot.Plot, width, height vg.Length, alt string) (template.HTML, error) {
	canvas := vgsvg.New(width, height)
	p.Draw(draw.New(canvas))
	var buf bytes.Buffer
	if _, err := canvas.WriteTo(&buf); err != nil {
		return "", fmt.Errorf("drawing %q: %w", alt, err)
	}
	text := buf.String()
	start := strings.Index(text, "<svg ")
	end := strings.Index(text, "viewBox=")
	if start < 0 || end < start {
		return "", fmt.Errorf("drawing %q: unexpected SVG", alt)
	}
	text = fmt.Sprintf(`<svg role="img" aria-label="%s" style="max-width:%dpx" `, template.HTMLEscapeString(alt), int(width*96/72)) + text[end:]
	return template.HTML(strings.ReplaceAll(text, measuredFont, browserFonts)), nil
}

// verticalGrid draws a line at each labelled tick of the X axis.
func verticalGrid() *plotter.Grid {
	g := plotter.NewGrid()
	g.Vertical.Color, g.Vertical.Width = gridColor, 0.5
	g.Horizontal.Width = 0
	return g
}

// fullGrid draws lines in both directions.
func fullGrid() *plotter.Grid {
	g := verticalGrid()
	g.Horizontal.Color, g.Horizontal.Width = gridColor, 0.5
	return g
}
