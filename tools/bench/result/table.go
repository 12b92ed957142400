package result

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteTable writes one line per result.
func WriteTable(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "workload\tops/s\tunits/s\tp50 µs\tp90\tp99\tp99.9\tmax\terrors\tserver µs/op\tcores\tRSS MiB\tpeak\tclient µs/op\tcores\t")
	for _, r := range results {
		units, server := "", "\t\t\t"
		if r.Unit != "op" {
			units = fmt.Sprintf("%.0f %ss", r.UnitsPerSecond, r.Unit)
		}
		if c := r.Server; c != nil {
			server = fmt.Sprintf("%s\t%.2f\t%.0f\t%.0f", Short(c.MicrosPerOp), c.Cores, MiB(c.RSSBytes), MiB(c.PeakBytes))
		}
		l := r.Latency
		fmt.Fprintf(t, "%s\t%.0f\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\t%.2f\t\n", r.Spec.Label(), r.OpsPerSecond, units,
			Short(l.P50), Short(l.P90), Short(l.P99), Short(l.P999), Short(l.Max), r.Errors,
			server, Short(r.Client.MicrosPerOp), r.Client.Cores)
	}
	return t.Flush()
}

// Short writes a number with three significant digits, large ones whole.
func Short(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// MiB converts bytes.
func MiB(bytes int64) float64 { return float64(bytes) / (1 << 20) }
