package report

import (
	"fmt"
	"html/template"

	"quire/tools/bench/versus"
)

// sections draws the plots.
func sections(c *versus.Comparison) ([]section, error) {
	var out []section
	for _, w := range []struct {
		section
		axis   string
		metric versus.Metric
		unit   bool // further rows per unit
	}{
		{section{Title: "Throughput", Text: "Operations per second; more is better. Workloads with a rate are held at it while a server keeps up."}, "operations per second", versus.Throughput, false},
		{section{Title: "CPU per operation", Text: "User and system time of the server process, divided by operations; less is better."}, "µs of CPU", versus.CPU, true},
		{section{Title: "Median latency"}, "µs", versus.P50, false},
		{section{Title: "99th percentile of latency"}, "µs", versus.P99, false},
		{section{Title: "Memory under load", Text: "Highest resident memory of the server process while the workload ran. In a closed loop a faster server has stored more by then."}, "MiB", versus.Peak, false},
		{section{Title: "Disk traffic", Text: "Bytes that the server process had written to the disk, per operation. What the kernel writes later on its own is charged to the process when it dirties the page."}, "bytes per operation", versus.Written, false},
	} {
		rows := pairRows(c.Pairs, w.metric)
		if w.unit {
			rows = append(rows, unitRows(c.Pairs)...)
		}
		svg, err := dumbbell(w.section.Title, w.axis, rows)
		if err != nil {
			return nil, err
		}
		if svg != "" {
			w.section.Wide = append(w.section.Wide, svg)
			out = append(out, w.section)
		}
	}
	for _, s := range []struct {
		section
		draw func(versus.Pair) (template.HTML, error)
	}{
		{section{Title: "Latency distributions", Text: "Every round is a line, the median round a strong one. Each step to the right is one more nine; the end of a line is the slowest operation."}, distribution},
		{section{Title: "Over time", Text: "Operations per second in the median round, warm-up included: a pause of the server is a dent."}, timeline},
	} {
		for _, p := range c.Pairs {
			svg, err := s.draw(p)
			if err != nil {
				return nil, fmt.Errorf("%s of %s: %w", s.Title, p.Spec.Label(), err)
			}
			if svg != "" {
				s.section.Small = append(s.section.Small, svg)
			}
		}
		if len(s.section.Small) > 0 {
			out = append(out, s.section)
		}
	}
	capacity, err := capacitySection(c.Capacity)
	if err != nil {
		return nil, err
	}
	return append(out, capacity...), nil
}

func pairRows(pairs []versus.Pair, m versus.Metric) []row {
	var rows []row
	for _, p := range pairs {
		r := row{label: p.Spec.Label()}
		for side := range p.Results {
			r.values[side], r.median[side] = p.Values(side, m), p.Median(side, m)
		}
		rows = append(rows, r)
	}
	return rows
}

// unitRows are rows per unit for workloads whose operation moves many.
func unitRows(pairs []versus.Pair) []row {
	var rows []row
	for _, p := range pairs {
		if len(p.Results[versus.Quire]) == 0 || p.Results[versus.Quire][0].Unit == "op" {
			continue
		}
		r := pairRows([]versus.Pair{p}, versus.CPUPerUnit)[0]
		r.label += " per " + p.Results[versus.Quire][0].Unit
		rows = append(rows, r)
	}
	return rows
}

// capacitySection plots memory, disk and restart time, each on its own axis.
func capacitySection(p *versus.CapacityPair) ([]section, error) {
	if p == nil {
		return nil, nil
	}
	byUnit := map[string][]row{}
	for _, m := range versus.CapacityMetrics {
		r := row{label: m.Name}
		for side := range p.Results {
			r.values[side], r.median[side] = p.Values(side, m), p.Median(side, m)
		}
		byUnit[m.Unit] = append(byUnit[m.Unit], r)
	}
	s := section{Title: fmt.Sprintf("Memory, disk and restart with %d keys", p.Keys)}
	for _, unit := range []string{"MiB", "s"} {
		svg, err := dumbbell(s.Title, unit, byUnit[unit])
		if err != nil {
			return nil, err
		}
		if svg != "" {
			s.Wide = append(s.Wide, svg)
		}
	}
	if len(s.Wide) == 0 {
		return nil, nil
	}
	return []section{s}, nil
}
