package report

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"quire/tools/bench/host"
	"quire/tools/bench/result"
	"quire/tools/bench/versus"
	"quire/tools/bench/workload"
)

var (
	fromJSON = flag.String("from", "", "render the comparison in this JSON file")
	toHTML   = flag.String("to", "", "write the rendered page to this file")
)

// sample is a comparison of two workloads and a capacity part.
func sample(t *testing.T) *versus.Comparison {
	t.Helper()
	c := &versus.Comparison{
		Command: "bench -versus -rounds 3", Finished: time.Unix(1700000000, 0).UTC(), Rounds: 3, WarmUp: 2, Window: 10,
		Versions: [2][]string{{"etcd Version: 3.7.1", "quire Version: test"}, {"etcd Version: 3.7.1"}},
		Host:     host.Facts{Cores: 2, Kernel: "Linux 6", Filesystem: "ext4", SyncMicros: [2]float64{140, 900}},
		Servers:  "0", Client: "1",
	}
	for _, text := range []string{"put@10x10", "list", "range@10x10:rate=2000"} {
		spec, err := workload.Parse(text, workload.Spec{})
		if err != nil {
			t.Fatal(err)
		}
		p := versus.Pair{Spec: spec}
		for round := range 3 {
			for side, factor := range []float64{4, 1} {
				p.Results[side] = append(p.Results[side], fake(spec, factor*(1+float64(round)/20)))
			}
		}
		c.Pairs = append(c.Pairs, p)
	}
	c.Capacity = &versus.CapacityPair{Keys: 1000, KeyBytes: 32, ValueBytes: 256, Results: [2][]versus.Capacity{
		{{LoadSeconds: 1, LoadedRSS: 100 << 20, LoadedAnon: 90 << 20, AfterTerm: []float64{0.1}, AfterKill: []float64{0.2}}},
		{{LoadSeconds: 4, LoadedRSS: 400 << 20, LoadedAnon: 300 << 20, AfterTerm: []float64{1.1}, AfterKill: []float64{1.2}}},
	}}
	return c
}

// fake is a result that is speed times as good as the worst.
func fake(spec workload.Spec, speed float64) result.Result {
	r := result.Result{
		Spec: spec, Seconds: 10, Ops: int64(1e5 * speed), OpsPerSecond: 1e4 * speed, Unit: workload.Unit(spec.Name), UnitsPerSecond: 1e4 * speed,
		Latency: result.Latency{P50: 1000 / speed, P90: 1500 / speed, P99: 4000 / speed, P999: 9000 / speed, Max: 20000 / speed},
		Server:  &result.Cost{Cores: 0.9, MicrosPerOp: 50 / speed, MicrosPerUnit: 50 / speed, PeakBytes: int64(200 / speed * (1 << 20)), WrittenPerOp: 900},
		Client:  result.Cost{Cores: 0.4},
	}
	for _, p := range []float64{0, 50, 90, 99, 99.9, 100} {
		r.Latency.Curve = append(r.Latency.Curve, result.CurvePoint{Percentile: p, Micros: 100 + 50*p/speed})
	}
	for i := range 20 {
		r.Series = append(r.Series, result.Point{Seconds: float64(i) / 4, OpsPerSecond: 1e4 * speed, RSSBytes: 100 << 20})
	}
	return r
}

func TestRender(t *testing.T) {
	text, err := Render(sample(t))
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, text)
	for _, want := range []string{
		"<td>put@10x10</td>", "bench -versus -rounds 3", "quire Version: test", "ext4", "servers on processor 0, client on 1",
		"list@2x2 per key", "restart after SIGKILL", "latency distribution of put@10x10",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	for _, refused := range []string{"<script", "http://", "https://", "NaN", "Inf"} {
		if strings.Contains(strings.ReplaceAll(string(text), "http://www.w3.org/", ""), refused) {
			t.Errorf("the page has %q: it must be self-contained and have numbers", refused)
		}
	}
}

func TestRenderOfAnInterruptedComparison(t *testing.T) {
	c := sample(t)
	c.Capacity = nil
	c.Pairs = c.Pairs[:2]
	c.Pairs[0].Results[versus.Upstream] = nil // failed in round 1
	c.Pairs[0].Results[versus.Quire] = c.Pairs[0].Results[versus.Quire][:1]
	c.Pairs[0].Errors = []string{"round 1, upstream: <gone>"}
	c.Pairs[1].Results = [2][]result.Result{}
	text, err := Render(c)
	if err != nil {
		t.Fatal(err)
	}
	wellFormed(t, text)
	if !strings.Contains(string(text), "upstream: &lt;gone&gt;") {
		t.Error("the failure is not on the page, or not escaped")
	}
}

func TestRenderOfNothing(t *testing.T) {
	if _, err := Render(&versus.Comparison{}); err != nil {
		t.Fatal(err)
	}
}

// TestRenderFile renders a real comparison, for looking at: -from and -to.
func TestRenderFile(t *testing.T) {
	if *fromJSON == "" {
		t.Skip("no -from")
	}
	text, err := os.ReadFile(*fromJSON)
	if err != nil {
		t.Fatal(err)
	}
	var c versus.Comparison
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(*toHTML, &c); err != nil {
		t.Fatal(err)
	}
}

// wellFormed checks that every tag is closed, with HTML's exceptions.
func wellFormed(t *testing.T, text []byte) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(string(text)))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestTicks(t *testing.T) {
	var labels []string
	for _, tick := range (logTicks{}).Ticks(40, 6000) {
		labels = append(labels, tick.Label)
	}
	if got := strings.Join(labels, " "); got != "50 100 200 500 1k 2k 5k" {
		t.Errorf("ticks %s", got)
	}
	labels = nil
	for _, tick := range (ninesTicks{}).Ticks(0, 4.2) {
		labels = append(labels, tick.Label)
	}
	if got := strings.Join(labels, " "); got != "0 50 90 99 99.9 99.99" {
		t.Errorf("ticks %s", got)
	}
}
