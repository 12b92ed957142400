package result

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"quire/tools/bench/loop"
	"quire/tools/bench/usage"
	"quire/tools/bench/workload"
)

func TestLatency(t *testing.T) {
	h := hdrhistogram.New(1, int64(time.Minute), 3)
	for i := int64(1); i <= 1000; i++ {
		if err := h.RecordValue(i * 1000); err != nil {
			t.Fatal(err)
		}
	}
	l := NewLatency(h)
	near := func(got, want float64) bool { return got > want*0.99 && got < want*1.01 }
	if !near(l.P50, 500) || !near(l.P99, 990) || !near(l.Max, 1000) {
		t.Errorf("got %+v", l)
	}
	last := l.Curve[len(l.Curve)-1]
	if last.Percentile != 100 || l.Curve[len(l.Curve)-2].Percentile != 99.9 {
		t.Errorf("1000 operations have no percentile above 99.9 but the maximum: %+v", l.Curve)
	}
}

func TestCost(t *testing.T) {
	before := usage.Reading{User: time.Second, WriteBytes: 100}
	after := usage.Reading{User: 2 * time.Second, System: time.Second, RSSBytes: 5, AnonBytes: 4, PeakBytes: 6, WriteBytes: 2100}
	c := NewCost(before, after, loop.Outcome{Ops: 1000, Units: 4000, Elapsed: 4 * time.Second})
	want := Cost{Cores: 0.5, MicrosPerOp: 2000, MicrosPerUnit: 500, UserShare: 0.5, RSSBytes: 5, AnonBytes: 4, PeakBytes: 6, WrittenPerOp: 2}
	if c != want {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
	if _, err := json.Marshal(NewCost(before, before, loop.Outcome{})); err != nil {
		t.Errorf("nothing measured cannot be written as JSON: %v", err)
	}
}

func TestSeries(t *testing.T) {
	s := NewSeries([]usage.Point{
		{At: 0}, {At: time.Second, Ops: 500, Reading: usage.Reading{User: 250 * time.Millisecond, RSSBytes: 7}}, {At: time.Second + time.Millisecond, Ops: 501},
	})
	if len(s) != 1 || s[0] != (Point{Seconds: 1, OpsPerSecond: 500, ServerCores: 0.25, RSSBytes: 7}) {
		t.Errorf("got %+v", s)
	}
}

func TestTable(t *testing.T) {
	put, _ := workload.Parse("put@1x2", workload.Spec{})
	list, _ := workload.Parse("list@1x1:rate=5", workload.Spec{})
	var out strings.Builder
	err := WriteTable(&out, []Result{
		{Spec: put, OpsPerSecond: 12345, Unit: "op", Latency: Latency{P50: 99.94, P99: 1234.5}, Server: &Cost{MicrosPerOp: 4.5678, RSSBytes: 50 << 20}},
		{Spec: list, OpsPerSecond: 5, Unit: "key", UnitsPerSecond: 2500, Errors: 3},
	})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	if len(lines) != 3 {
		t.Fatalf("want a head and two rows:\n%s", out.String())
	}
	for i, want := range [][]string{1: {"put@1x2", "12345", "99.9", "1234", "4.57", "50"}, 2: {"list@1x1:rate=5", "2500 keys", "3"}} {
		for _, w := range want {
			if !strings.Contains(lines[i], w) {
				t.Errorf("line %q lacks %q", lines[i], w)
			}
		}
	}
}
