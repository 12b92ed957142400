package fold

import (
	"math"
	"slices"
	"sort"

	dto "github.com/prometheus/client_model/go"
)

// Families are metrics by name.
type Families = map[string]*dto.MetricFamily

// Histogram is the difference of a histogram between two readings.
type Histogram struct {
	Count uint64
	Sum   float64
	// Upper and Below: Below[i] observations were at most Upper[i].
	Upper []float64
	Below []uint64
}

// HistogramOf is what the histogram called name observed between the readings.
func HistogramOf(before, after Families, name string) (Histogram, bool) {
	a, b := single(after[name]), single(before[name])
	if a == nil {
		return Histogram{}, false
	}
	h := Histogram{Count: a.GetSampleCount() - b.GetSampleCount(), Sum: a.GetSampleSum() - b.GetSampleSum()}
	for i, bucket := range a.GetBucket() {
		below := bucket.GetCumulativeCount()
		if old := b.GetBucket(); i < len(old) {
			below -= old[i].GetCumulativeCount()
		}
		h.Upper, h.Below = append(h.Upper, bucket.GetUpperBound()), append(h.Below, below)
	}
	return h, true
}

// single is the only histogram of a family without labels.
func single(f *dto.MetricFamily) *dto.Histogram {
	if f == nil || len(f.Metric) == 0 {
		return nil
	}
	return f.Metric[0].GetHistogram()
}

// Mean is 0 without an observation.
func (h Histogram) Mean() float64 {
	if h.Count == 0 {
		return 0
	}
	return h.Sum / float64(h.Count)
}

// Quantile interpolates inside the bucket, as Prometheus does; in the last,
// unbounded bucket it gives the lower end. NaN without an observation.
func (h Histogram) Quantile(q float64) float64 {
	if h.Count == 0 || len(h.Upper) == 0 {
		return math.NaN()
	}
	rank := q * float64(h.Count)
	i := sort.Search(len(h.Below), func(i int) bool { return float64(h.Below[i]) >= rank })
	if i == len(h.Below) {
		return h.Upper[len(h.Upper)-1]
	}
	low, below := 0.0, 0.0
	if i > 0 {
		low, below = h.Upper[i-1], float64(h.Below[i-1])
	}
	if math.IsInf(h.Upper[i], 1) {
		return low
	}
	in := float64(h.Below[i]) - below
	if in == 0 {
		return h.Upper[i]
	}
	return low + (h.Upper[i]-low)*(rank-below)/in
}

// Rate is one counter with labels and how much it grew.
type Rate struct {
	Label string
	Grown float64
}

// Grown lists how much each metric of a counter family grew, by the value of
// one of its labels, largest first; what did not grow is left out.
func Grown(before, after Families, name, label string) []Rate {
	sums := map[string]float64{}
	for sign, f := range map[float64]*dto.MetricFamily{1: after[name], -1: before[name]} {
		for _, m := range f.GetMetric() {
			sums[labelOf(m, label)] += sign * m.GetCounter().GetValue()
		}
	}
	var rates []Rate
	for l, v := range sums {
		if v > 0 {
			rates = append(rates, Rate{l, v})
		}
	}
	slices.SortFunc(rates, func(a, b Rate) int {
		if a.Grown != b.Grown {
			return int(math.Copysign(1, b.Grown-a.Grown))
		}
		return 0
	})
	return rates
}

func labelOf(m *dto.Metric, name string) string {
	for _, l := range m.GetLabel() {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}
