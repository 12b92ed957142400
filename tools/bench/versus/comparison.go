package versus

import (
	"math"
	"slices"
	"time"

	"quire/tools/bench/host"
	"quire/tools/bench/result"
	"quire/tools/bench/workload"
)

// The sides of a comparison, as indexes.
const (
	Quire = iota
	Upstream
	sides
)

// SideNames are the names of the sides.
var SideNames = [sides]string{"quire", "upstream"}

// Comparison is everything that was found out.
type Comparison struct {
	Command  string          `json:"command"`
	Finished time.Time       `json:"finished"`
	Versions [sides][]string `json:"versions"`
	Flags    [sides][]string `json:"extra_flags"`
	Host     host.Facts      `json:"host"`
	Servers  string          `json:"server_processors"` // empty: not pinned
	Client   string          `json:"client_processors"`
	Light    bool            `json:"light_client"`
	Members  int             `json:"members"`
	Rounds   int             `json:"rounds"`
	WarmUp   float64         `json:"warm_up_seconds"`
	Window   float64         `json:"window_seconds"`
	Quota    int64           `json:"quota_bytes"`
	Pairs    []Pair          `json:"pairs"`
	Capacity *CapacityPair   `json:"capacity,omitempty"`
	Faults   *FaultPair      `json:"faults,omitempty"`
}

// Pair is one workload with one result per round and side.
type Pair struct {
	Spec    workload.Spec          `json:"workload"`
	Results [sides][]result.Result `json:"results"` // quire's, upstream's
	Errors  []string               `json:"errors,omitempty"`
}

// Metric is one figure of a result.
type Metric struct {
	Name       string
	HighBetter bool
	Of         func(result.Result) float64 // 0 if it was not measured
}

// The metrics that tables and plots show.
var (
	Throughput = Metric{"operations per second", true, func(r result.Result) float64 { return r.OpsPerSecond }}
	Units      = Metric{"units per second", true, func(r result.Result) float64 { return r.UnitsPerSecond }}
	P50        = Metric{"median latency, µs", false, func(r result.Result) float64 { return r.Latency.P50 }}
	P99        = Metric{"99th percentile of latency, µs", false, func(r result.Result) float64 { return r.Latency.P99 }}
	P999       = Metric{"99.9th percentile of latency, µs", false, func(r result.Result) float64 { return r.Latency.P999 }}
	CPU        = Metric{"server CPU per operation, µs", false, func(r result.Result) float64 {
		return ofServer(r, func(c *result.Cost) float64 { return c.MicrosPerOp })
	}}
	CPUPerUnit = Metric{"server CPU per unit, µs", false, func(r result.Result) float64 {
		return ofServer(r, func(c *result.Cost) float64 { return c.MicrosPerUnit })
	}}
	Peak = Metric{"peak resident memory, MiB", false, func(r result.Result) float64 {
		return ofServer(r, func(c *result.Cost) float64 { return result.MiB(c.PeakBytes) })
	}}
	Cores = Metric{"processors used by the server", false, func(r result.Result) float64 {
		return ofServer(r, func(c *result.Cost) float64 { return c.Cores })
	}}
	ClientCores = Metric{"processors used by the client", false, func(r result.Result) float64 { return r.Client.Cores }}
	Written     = Metric{"bytes written to disk per operation", false, func(r result.Result) float64 {
		return ofServer(r, func(c *result.Cost) float64 { return c.WrittenPerOp })
	}}
)

func ofServer(r result.Result, f func(*result.Cost) float64) float64 {
	if r.Server == nil {
		return 0
	}
	return f(r.Server)
}

// Values are the metric's values of one side, one per round.
func (p Pair) Values(side int, m Metric) []float64 {
	var vs []float64
	for _, r := range p.Results[side] {
		vs = append(vs, m.Of(r))
	}
	return vs
}

// Median is the median over the rounds; NaN without a round.
func (p Pair) Median(side int, m Metric) float64 { return median(p.Values(side, m)) }

// Ratio says how many times better quire is.
type Ratio struct {
	Median, Low, High float64
}

// Ratio pairs the rounds; the result is zero if there is no pair.
func (p Pair) Ratio(m Metric) Ratio {
	return ratios(p.Values(Quire, m), p.Values(Upstream, m), m.HighBetter)
}

// ratios pairs a[i] with b[i].
func ratios(quire, upstream []float64, highBetter bool) Ratio {
	var rs []float64
	for i := range min(len(quire), len(upstream)) {
		q, u := quire[i], upstream[i]
		if q <= 0 || u <= 0 {
			continue
		}
		if highBetter {
			rs = append(rs, q/u)
		} else {
			rs = append(rs, u/q)
		}
	}
	if len(rs) == 0 {
		return Ratio{}
	}
	return Ratio{Median: median(rs), Low: slices.Min(rs), High: slices.Max(rs)}
}

func median(vs []float64) float64 {
	if len(vs) == 0 {
		return math.NaN()
	}
	vs = slices.Sorted(slices.Values(vs))
	n := len(vs)
	return (vs[(n-1)/2] + vs[n/2]) / 2
}

// MedianRound is the index of the side's round whose throughput is the median,
// for plots that show one round; -1 without a round.
func (p Pair) MedianRound(side int) int {
	vs := p.Values(side, Throughput)
	if len(vs) == 0 {
		return -1
	}
	return slices.Index(vs, slices.Sorted(slices.Values(vs))[(len(vs)-1)/2])
}
