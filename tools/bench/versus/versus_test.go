package versus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"quire/tools/bench/fakeetcd"
	"quire/tools/bench/result"
	"quire/tools/bench/workload"
)

// TestMain lets the test binary stand in for both servers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "--version" || strings.HasPrefix(os.Args[1], "--name=")) {
		if err := fakeetcd.Main(os.Args[1:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// silent reports nothing and may cancel when a task begins.
type silent struct {
	cancel context.CancelFunc
	at     string
}

func (s silent) Begin(task string) {
	if s.cancel != nil && strings.Contains(task, s.at) {
		s.cancel()
	}
}

func (silent) Update(float64, string) {}

func options(t *testing.T, workloads ...string) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		QuirePath: self, UpstreamPath: self, Rounds: 2, Members: 1, Dir: t.TempDir(), QuotaBytes: 1 << 30,
		WarmUp: 10 * time.Millisecond, Window: 100 * time.Millisecond, Restarts: 1,
	}
	for _, text := range workloads {
		spec, err := workload.Parse(text, workload.Spec{Keys: 100, Conns: 1, Streams: 2})
		if err != nil {
			t.Fatal(err)
		}
		o.Specs = append(o.Specs, spec)
	}
	return o
}

func TestRun(t *testing.T) {
	o := options(t, "put", "range:rate=500")
	o.CapacityKeys, o.CapacityRounds = 1000, 1
	c, err := Run(t.Context(), o, silent{})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Pairs) != 2 || c.Versions[Upstream][0] != "etcd Version: 3.7.0-fake" || c.Host.Filesystem == "" {
		t.Errorf("got %+v", c)
	}
	for _, p := range c.Pairs {
		for side := range sides {
			if len(p.Results[side]) != 2 || p.Median(side, Throughput) <= 0 || p.Median(side, Peak) <= 0 {
				t.Errorf("%s, %s: %+v, errors %q", p.Spec.Label(), SideNames[side], p.Results[side], p.Errors)
			}
		}
		if r := p.Ratio(Throughput); r.Low <= 0 || r.Median < r.Low || r.Median > r.High {
			t.Errorf("ratio %+v", r)
		}
	}
	for side := range sides {
		got := c.Capacity.Results[side]
		if len(got) != 1 || got[0].LoadedRSS == 0 || got[0].DiskBytes != 8192 || len(got[0].AfterTerm) != 1 || len(got[0].AfterKill) != 1 {
			t.Errorf("capacity of %s: %+v, errors %q", SideNames[side], got, c.Capacity.Errors)
		}
	}
	var table strings.Builder
	if err := c.WriteTable(&table); err != nil || !strings.Contains(table.String(), "range@1x2:rate=500") {
		t.Errorf("%v\n%s", err, table.String())
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAFailingSideIsNoted(t *testing.T) {
	o := options(t, "put", "range")
	o.UpstreamFlags = []string{"--no-such-flag"}
	c, err := Run(t.Context(), o, silent{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Pairs {
		if len(p.Errors) != 1 || !strings.Contains(p.Errors[0], "no-such-flag") || len(p.Results[Quire]) != 1 {
			t.Errorf("%s: errors %q", p.Spec.Label(), p.Errors)
		}
	}
}

func TestInterruptedKeepsResults(t *testing.T) {
	o := options(t, "put", "range")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, err := Run(ctx, o, silent{cancel, "range@1x2 round 2"})
	if !errors.Is(err, context.Canceled) || c == nil || len(c.Pairs) != 2 || len(c.Pairs[1].Results[Upstream]) != 1 {
		t.Fatalf("got %+v, %v", c, err)
	}
	if err := c.WriteTable(&strings.Builder{}); err != nil {
		t.Error(err)
	}
}

func TestRatios(t *testing.T) {
	r := ratios([]float64{10, 30, 20}, []float64{10, 10, 10}, true)
	if r != (Ratio{Median: 2, Low: 1, High: 3}) {
		t.Errorf("got %+v", r)
	}
	if r := ratios([]float64{5, 5}, []float64{20, 10}, false); r.Median != 3 {
		t.Errorf("got %+v, want quire 3 times better", r)
	}
	if r := ratios([]float64{0, 5}, []float64{1, 0}, false); r != (Ratio{}) {
		t.Errorf("what was not measured gave %+v", r)
	}
	if !math.IsNaN(median(nil)) || median([]float64{4, 1, 3, 2}) != 2.5 {
		t.Error("median is wrong")
	}
}

func TestMedianRound(t *testing.T) {
	p := Pair{}
	if p.MedianRound(Quire) != -1 {
		t.Error("no round has a median")
	}
	for _, v := range []float64{50, 10, 30} {
		p.Results[Quire] = append(p.Results[Quire], result.Result{OpsPerSecond: v})
	}
	if got := p.MedianRound(Quire); got != 2 {
		t.Errorf("median round %d, want 2", got)
	}
}

func TestValidate(t *testing.T) {
	o := Options{Rounds: -1, Restarts: 0, Members: 1, CapacityKeys: -1, QuotaBytes: 0, Dir: "/does/not/exist"}
	if errs := o.Validate(); len(errs) != 5 {
		t.Errorf("want all 5 faults at once, got %q", errs)
	}
	o = Options{Rounds: 1, Restarts: 1, Members: 1, QuotaBytes: 1}
	if errs := o.Validate(); len(errs) != 0 || o.Dir == "" {
		t.Errorf("got %q, directory %q", errs, o.Dir)
	}
}
