package fold

import (
	"math"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// stacks builds a profile; each stack is innermost first.
func stacks(t *testing.T, samples map[string]int64) *profile.Profile {
	t.Helper()
	p := &profile.Profile{SampleType: []*profile.ValueType{{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}}}
	functions := map[string]*profile.Location{}
	for text, v := range samples {
		s := &profile.Sample{Value: []int64{1, v}}
		for _, name := range strings.Fields(text) {
			loc := functions[name]
			if loc == nil {
				id := uint64(len(functions) + 1)
				f := &profile.Function{ID: id, Name: name}
				loc = &profile.Location{ID: id, Line: []profile.Line{{Function: f}}}
				p.Function, p.Location = append(p.Function, f), append(p.Location, loc)
				functions[name] = loc
			}
			s.Location = append(s.Location, loc)
		}
		p.Sample = append(p.Sample, s)
	}
	if err := p.CheckValid(); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFold(t *testing.T) {
	table, err := foldProfile(stacks(t, map[string]int64{
		"a/b.leaf a/b.(*T).Mid c.main":            30e6,
		"a/b.(*T).Mid c.main":                     10e6,
		"c.recurse c.recurse c.main":              20e6,
		"x/y.F[go.shape.struct{a/z.V}].do c.main": 40e6,
	}), "cpu")
	if err != nil {
		t.Fatal(err)
	}
	if table.Total != 100e6 || table.Functions[0].Name != "x/y.F[go.shape.struct{a/z.V}].do" {
		t.Errorf("got %+v", table)
	}
	want := map[string][2]int64{"a/b": {40e6, 40e6}, "c": {20e6, 100e6}, "x/y": {40e6, 40e6}}
	for _, e := range table.Packages {
		if w, ok := want[e.Name]; !ok || w != [2]int64{e.Flat, e.Cum} {
			t.Errorf("package %+v, want %v", e, w)
		}
	}
	for _, e := range table.Functions {
		if e.Name == "c.recurse" && e.Cum != 20e6 {
			t.Errorf("recursion counts twice: %+v", e)
		}
	}
	if first := ByCum(table.Functions)[0]; first.Name != "c.main" || first.Cum != 100e6 {
		t.Errorf("largest cum is %+v", first)
	}
	var out strings.Builder
	if err := table.Write(&out, table.Functions, 1, 1000); err != nil {
		t.Fatal(err)
	}
	for _, w := range []string{"40 ms", "40.0", "40 µs"} {
		if !strings.Contains(out.String(), w) {
			t.Errorf("table lacks %q:\n%s", w, out.String())
		}
	}
	if _, err := foldProfile(stacks(t, nil), "alloc_space"); err == nil {
		t.Error("folded a sample type that is not there")
	}
}

func parse(t *testing.T, text string) Families {
	t.Helper()
	p := expfmt.NewTextParser(model.UTF8Validation)
	f, err := p.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

const (
	before = `# TYPE h histogram
h_bucket{le="0.001"} 10
h_bucket{le="0.002"} 10
h_bucket{le="+Inf"} 10
h_sum 0.005
h_count 10
# TYPE c counter
c{m="Put"} 5
c{m="Range"} 7
`
	after = `# TYPE h histogram
h_bucket{le="0.001"} 60
h_bucket{le="0.002"} 100
h_bucket{le="+Inf"} 110
h_sum 0.105
h_count 110
# TYPE c counter
c{m="Put"} 10
c{m="Range"} 7
c{m="Txn"} 9
`
)

func TestMetrics(t *testing.T) {
	b, a := parse(t, before), parse(t, after)
	h, ok := HistogramOf(b, a, "h")
	if !ok || h.Count != 100 || math.Abs(h.Mean()-0.001) > 1e-9 {
		t.Errorf("got %+v, mean %v", h, h.Mean())
	}
	for q, want := range map[float64]float64{0.25: 0.0005, 0.5: 0.001, 0.7: 0.0015, 0.99: 0.002} {
		if got := h.Quantile(q); math.Abs(got-want) > 1e-9 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if _, ok := HistogramOf(b, a, "absent"); ok {
		t.Error("found a histogram that is not there")
	}
	if h, ok := HistogramOf(map[string]*dto.MetricFamily{}, a, "h"); !ok || h.Count != 110 {
		t.Errorf("a histogram that was not there before gave %+v", h)
	}
	grown := Grown(b, a, "c", "m")
	if len(grown) != 2 || grown[0] != (Rate{"Txn", 9}) || grown[1] != (Rate{"Put", 5}) {
		t.Errorf("got %v", grown)
	}
}

func TestAmount(t *testing.T) {
	for want, got := range map[string]string{
		"1.5 s": Amount(1.5e9, "nanoseconds"), "0 ns": Amount(0, "nanoseconds"), "2 KiB": Amount(2048, "bytes"), "12": Amount(12, "count"),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
