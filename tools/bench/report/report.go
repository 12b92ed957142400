package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"os"
	"strings"

	"quire/tools/bench/result"
	"quire/tools/bench/versus"
	"quire/tools/bench/workload"
)

//go:embed page.html
var pageText string

// page is what page.html is filled with.
type page struct {
	C         *versus.Comparison
	Pinned    string
	Memory    string
	Sync      [2]string
	Versions  []version
	Columns   []string
	Table     []tableRow
	Capacity  []cell
	Failures  []string
	Sections  []section
	Workloads []described
}

type version struct {
	Name  string
	Lines []string
	Flags string
}

type tableRow struct {
	Label string
	Cells []cell
	Busy  cell // server and client cores of each side
}

// cell compares one figure.
type cell struct {
	Label, Quire, Upstream, Ratio, Spread string
}

type section struct {
	Title, Text string
	Wide        []template.HTML
	Small       []template.HTML
}

type described struct{ Label, About, Spec string }

// columns of the summary.
var columns = []struct {
	title  string
	metric versus.Metric
}{
	{"operations/s", versus.Throughput}, {"CPU µs/operation", versus.CPU}, {"p50 µs", versus.P50}, {"p99 µs", versus.P99}, {"peak MiB", versus.Peak},
}

// WriteFile renders c into the file path.
func WriteFile(path string, c *versus.Comparison) error {
	text, err := Render(c)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

// Render makes the page.
func Render(c *versus.Comparison) ([]byte, error) {
	t, err := template.New("page").Parse(pageText)
	if err != nil {
		return nil, fmt.Errorf("parsing the page: %w", err)
	}
	p := newPage(c)
	if p.Sections, err = sections(c); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	if err := t.Execute(&buf, p); err != nil {
		return nil, fmt.Errorf("rendering the page: %w", err)
	}
	return buf.Bytes(), nil
}

func newPage(c *versus.Comparison) page {
	p := page{
		C: c, Pinned: "not pinned to processors",
		Memory: fmt.Sprintf("%.0f", float64(c.Host.MemoryBytes)/(1<<30)),
		Sync:   [2]string{result.Short(c.Host.SyncMicros[0]), result.Short(c.Host.SyncMicros[1])},
	}
	if c.Servers != "" {
		p.Pinned = fmt.Sprintf("servers on processor %s, client on %s", c.Servers, or(c.Client, "any"))
	}
	for side, name := range versus.SideNames {
		p.Versions = append(p.Versions, version{name, c.Versions[side], strings.Join(c.Flags[side], " ")})
	}
	for _, col := range columns {
		p.Columns = append(p.Columns, col.title)
	}
	for _, pair := range c.Pairs {
		p.Workloads = append(p.Workloads, described{pair.Spec.Label(), workload.About(pair.Spec.Name), pair.Spec.String()})
		p.Table = append(p.Table, newRow(pair))
		for _, e := range pair.Errors {
			p.Failures = append(p.Failures, fmt.Sprintf("%s failed, %s", pair.Spec.Label(), e))
		}
		p.Failures = append(p.Failures, answeredErrors(pair)...)
	}
	if c.Capacity != nil {
		p.Failures = append(p.Failures, c.Capacity.Errors...)
		for _, m := range versus.CapacityMetrics {
			cl := newCell(c.Capacity.Median(versus.Quire, m), c.Capacity.Median(versus.Upstream, m), c.Capacity.Ratio(m))
			cl.Label = m.Name + ", " + m.Unit
			p.Capacity = append(p.Capacity, cl)
		}
	}
	return p
}

func newRow(pair versus.Pair) tableRow {
	row := tableRow{Label: pair.Spec.Label()}
	for _, col := range columns {
		row.Cells = append(row.Cells, newCell(pair.Median(versus.Quire, col.metric), pair.Median(versus.Upstream, col.metric), pair.Ratio(col.metric)))
	}
	busy := func(side int) string {
		return fmt.Sprintf("%.2f, %.2f", pair.Median(side, versus.Cores), pair.Median(side, versus.ClientCores))
	}
	if len(pair.Results[versus.Quire]) > 0 {
		row.Busy.Quire = busy(versus.Quire)
	}
	if len(pair.Results[versus.Upstream]) > 0 {
		row.Busy.Upstream = busy(versus.Upstream)
	}
	return row
}

func newCell(quire, upstream float64, r versus.Ratio) cell {
	c := cell{Quire: dash(quire), Upstream: dash(upstream), Ratio: dash(r.Median)}
	if r.Low != r.High {
		c.Spread = fmt.Sprintf("%s–%s", result.Short(r.Low), result.Short(r.High))
	}
	return c
}

// answeredErrors says where a server answered with errors: its figures are then
// worth less than they look.
func answeredErrors(pair versus.Pair) []string {
	var texts []string
	for side, name := range versus.SideNames {
		for i, r := range pair.Results[side] {
			if r.Errors > 0 {
				texts = append(texts, fmt.Sprintf("%s, %s, round %d: %d operations failed, the first with: %s", pair.Spec.Label(), name, i+1, r.Errors, r.FirstError))
			}
		}
	}
	return texts
}

// dash stands where nothing was measured.
func dash(v float64) string {
	if math.IsNaN(v) || v == 0 {
		return "–"
	}
	return result.Short(v)
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
