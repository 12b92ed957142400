package versus

import (
	"errors"
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"quire/tools/bench/result"
)

// tableMetrics are the columns of the text table.
var tableMetrics = []struct {
	title  string
	metric Metric
}{
	{"ops/s", Throughput}, {"p50 µs", P50}, {"p99 µs", P99}, {"CPU µs/op", CPU}, {"peak MiB", Peak},
}

// WriteTable writes the medians of both sides and the ratios.
func (c *Comparison) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "workload\t")
	for _, m := range tableMetrics {
		fmt.Fprintf(t, "%s: quire\tupstream\t×\t", m.title)
	}
	fmt.Fprintln(t)
	for _, p := range c.Pairs {
		fmt.Fprintf(t, "%s\t", p.Spec.Label())
		for _, m := range tableMetrics {
			fmt.Fprintf(t, "%s\t%s\t%s\t", short(p.Median(Quire, m.metric)), short(p.Median(Upstream, m.metric)), short(p.Ratio(m.metric).Median))
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "× says how many times better quire is: the median over %d paired rounds.\n", c.Rounds)
	for _, p := range c.Pairs {
		for _, e := range p.Errors {
			fmt.Fprintf(w, "%s failed: %s\n", p.Spec.Label(), e)
		}
		for side := range sides {
			if n := errorsOf(p.Results[side]); n > 0 {
				fmt.Fprintf(w, "%s: %s answered %d operations with an error\n", p.Spec.Label(), SideNames[side], n)
			}
		}
	}
	return errors.Join(c.writeCapacity(w), c.writeFaults(w))
}

func (c *Comparison) writeFaults(w io.Writer) error {
	p := c.Faults
	if p == nil {
		return nil
	}
	fmt.Fprintf(w, "\n%d members:\n", c.Members)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tquire\tupstream\t×\t")
	for _, m := range FaultMetrics {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t\n", m.Name, short(median(m.Of(p.Results[Quire]))), short(median(m.Of(p.Results[Upstream]))), short(p.Ratio(m).Median))
	}
	for _, e := range p.Errors {
		fmt.Fprintf(t, "failed: %s\n", e)
	}
	return t.Flush()
}

func (c *Comparison) writeCapacity(w io.Writer) error {
	p := c.Capacity
	if p == nil {
		return nil
	}
	fmt.Fprintf(w, "\n%d keys of %d bytes with values of %d bytes:\n", p.Keys, p.KeyBytes, p.ValueBytes)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tquire\tupstream\t×\t")
	for _, m := range CapacityMetrics {
		fmt.Fprintf(t, "%s, %s\t%s\t%s\t%s\t\n", m.Name, m.Unit, short(p.Median(Quire, m)), short(p.Median(Upstream, m)), short(p.Ratio(m).Median))
	}
	for _, e := range p.Errors {
		fmt.Fprintf(t, "failed: %s\n", e)
	}
	return t.Flush()
}

func errorsOf(results []result.Result) (n int64) {
	for _, r := range results {
		n += r.Errors
	}
	return n
}

// short is a dash where nothing was measured.
func short(v float64) string {
	if math.IsNaN(v) || v == 0 {
		return "–"
	}
	return result.Short(v)
}
