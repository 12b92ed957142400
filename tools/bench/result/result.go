package result

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"quire/tools/bench/loop"
	"quire/tools/bench/usage"
	"quire/tools/bench/workload"
)

// Result is one trial.
type Result struct {
	Spec    workload.Spec `json:"workload"`
	Loop    string        `json:"loop"` // "closed" or "open"
	Seconds float64       `json:"seconds"`

	Ops            int64   `json:"operations"`
	OpsPerSecond   float64 `json:"operations_per_second"`
	Unit           string  `json:"unit"`
	UnitsPerSecond float64 `json:"units_per_second"`
	Errors         int64   `json:"errors"`
	FirstError     string  `json:"first_error,omitempty"`

	Latency        Latency `json:"latency_micros"`
	LatenessMicros float64 `json:"start_lateness_p99_micros,omitempty"` // open loop

	Server *Cost   `json:"server,omitempty"` // absent if no process was named
	Client Cost    `json:"client"`
	Series []Point `json:"series"`
}

// Latency is a distribution in microseconds.
type Latency struct {
	Mean  float64      `json:"mean"`
	P50   float64      `json:"p50"`
	P90   float64      `json:"p90"`
	P99   float64      `json:"p99"`
	P999  float64      `json:"p999"`
	Max   float64      `json:"max"`
	Curve []CurvePoint `json:"curve"`
}

// CurvePoint says that Percentile percent of the operations took at most Micros.
type CurvePoint struct {
	Percentile float64 `json:"percentile"`
	Micros     float64 `json:"micros"`
}

// Cost is what one end consumed in the window and held at its end.
type Cost struct {
	Cores         float64 `json:"cores"` // CPU seconds per second
	MicrosPerOp   float64 `json:"cpu_micros_per_operation"`
	MicrosPerUnit float64 `json:"cpu_micros_per_unit"`
	UserShare     float64 `json:"user_share"` // of the CPU time

	RSSBytes        int64   `json:"rss_bytes"`
	AnonBytes       int64   `json:"anon_bytes"`
	PeakBytes       int64   `json:"peak_rss_bytes"`
	WrittenPerOp    float64 `json:"disk_bytes_written_per_operation"`
	ReadBytesPerSec float64 `json:"disk_bytes_read_per_second"`
}

// Point is the state at one moment of the run, warm-up included.
type Point struct {
	Seconds      float64 `json:"seconds"`
	OpsPerSecond float64 `json:"operations_per_second"`
	ServerCores  float64 `json:"server_cores"`
	RSSBytes     int64   `json:"rss_bytes"`
}

// curvePercentiles are those of the distribution plot; each nine more is one
// step to the right.
var curvePercentiles = []float64{
	0, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.75, 99.9, 99.95, 99.975, 99.99, 99.995, 99.999, 100,
}

const nanosPerMicro = 1000

// NewLatency summarises a histogram of nanoseconds.
func NewLatency(h *hdrhistogram.Histogram) Latency {
	at := func(p float64) float64 { return float64(h.ValueAtQuantile(p)) / nanosPerMicro }
	l := Latency{Mean: h.Mean() / nanosPerMicro, P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), Max: float64(h.Max()) / nanosPerMicro}
	n := h.TotalCount()
	for _, p := range curvePercentiles {
		// A percentile that fewer than one operation lies above is the maximum.
		if p < 100 && float64(n)*(100-p)/100 < 1-1e-9 {
			continue
		}
		l.Curve = append(l.Curve, CurvePoint{p, at(p)})
	}
	return l
}

// NewCost is what was consumed between two readings by out's operations.
func NewCost(before, after usage.Reading, out loop.Outcome) Cost {
	cpu := after.CPU() - before.CPU()
	seconds := out.Elapsed.Seconds()
	return Cost{
		Cores:           ratio(cpu.Seconds(), seconds),
		MicrosPerOp:     ratio(float64(cpu)/float64(time.Microsecond), float64(out.Ops)),
		MicrosPerUnit:   ratio(float64(cpu)/float64(time.Microsecond), float64(out.Units)),
		UserShare:       ratio(float64(after.User-before.User), float64(cpu)),
		RSSBytes:        after.RSSBytes,
		AnonBytes:       after.AnonBytes,
		PeakBytes:       after.PeakBytes,
		WrittenPerOp:    ratio(float64(after.WriteBytes-before.WriteBytes), float64(out.Ops)),
		ReadBytesPerSec: ratio(float64(after.ReadBytes-before.ReadBytes), seconds),
	}
}

// NewSeries turns cumulative samples into rates.
func NewSeries(points []usage.Point) []Point {
	var series []Point
	for i := 1; i < len(points); i++ {
		a, b := points[i-1], points[i]
		seconds := (b.At - a.At).Seconds()
		if seconds < 0.05 { // the last sample may follow the one before at once
			continue
		}
		series = append(series, Point{
			Seconds:      b.At.Seconds(),
			OpsPerSecond: float64(b.Ops-a.Ops) / seconds,
			ServerCores:  (b.Reading.CPU() - a.Reading.CPU()).Seconds() / seconds,
			RSSBytes:     b.Reading.RSSBytes,
		})
	}
	return series
}

// ratio is a/b, or 0 when b is 0: JSON has no infinity.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
