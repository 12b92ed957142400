package fold

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/google/pprof/profile"
)

// Entry is one function or package.
type Entry struct {
	Name      string
	Flat, Cum int64
}

// Table is one folded sample type of a profile.
type Table struct {
	Unit      string // nanoseconds, bytes or count
	Total     int64
	Functions []Entry // by flat, largest first
	Packages  []Entry // by flat, largest first
}

// Load folds the sample type (for example cpu, alloc_space) of a file.
func Load(path, sampleType string) (*Table, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p, err := profile.Parse(file)
	if err != nil {
		return nil, fmt.Errorf("reading a profile: %w", err)
	}
	return foldProfile(p, sampleType)
}

func foldProfile(p *profile.Profile, sampleType string) (*Table, error) {
	index := slices.IndexFunc(p.SampleType, func(v *profile.ValueType) bool { return v.Type == sampleType })
	if index < 0 {
		return nil, fmt.Errorf("the profile has no %s", sampleType)
	}
	t := &Table{Unit: p.SampleType[index].Unit}
	functions, packages := map[string]*Entry{}, map[string]*Entry{}
	for _, s := range p.Sample {
		v := s.Value[index]
		t.Total += v
		stack := names(s)
		charge(functions, stack, v)
		for i, name := range stack {
			stack[i] = packageOf(name)
		}
		charge(packages, stack, v)
	}
	t.Functions, t.Packages = sorted(functions), sorted(packages)
	return t, nil
}

// names is the sample's stack, innermost first, inlined calls spelled out.
func names(s *profile.Sample) []string {
	var stack []string
	for _, loc := range s.Location {
		for _, line := range loc.Line {
			if line.Function != nil {
				stack = append(stack, line.Function.Name)
			}
		}
	}
	return stack
}

// charge adds v to the innermost entry's flat and once to every entry's cum,
// also where the stack recurses.
func charge(entries map[string]*Entry, stack []string, v int64) {
	seen := map[string]bool{}
	for i, name := range stack {
		e := entries[name]
		if e == nil {
			e = &Entry{Name: name}
			entries[name] = e
		}
		if i == 0 {
			e.Flat += v
		}
		if !seen[name] {
			e.Cum += v
			seen[name] = true
		}
	}
}

func sorted(entries map[string]*Entry) []Entry {
	var list []Entry
	for _, e := range entries {
		list = append(list, *e)
	}
	slices.SortFunc(list, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(b.Flat, a.Flat), cmp.Compare(b.Cum, a.Cum), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// packageOf cuts the function off a name like example.org/a/b.(*T).F[...].
func packageOf(name string) string {
	if i := strings.IndexByte(name, '['); i >= 0 { // type arguments may contain slashes
		name = name[:i]
	}
	slash := strings.LastIndexByte(name, '/') + 1
	if dot := strings.IndexByte(name[slash:], '.'); dot >= 0 {
		return name[:slash+dot]
	}
	return name
}

// ByCum is a copy of entries with the largest cum first.
func ByCum(entries []Entry) []Entry {
	list := slices.Clone(entries)
	slices.SortStableFunc(list, func(a, b Entry) int { return cmp.Compare(b.Cum, a.Cum) })
	return list
}

// Write prints the first n entries. calls is by how many calls to divide for
// the last columns; 0 leaves them out.
func (t *Table) Write(w io.Writer, entries []Entry, n int, calls float64) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := "flat\tflat %\tcum\tcum %\t"
	if calls > 0 {
		head += "flat/call\tcum/call\t"
	}
	fmt.Fprintln(tw, head+"  ")
	for _, e := range entries[:min(n, len(entries))] {
		if e.Cum == 0 {
			continue
		}
		fmt.Fprintf(tw, "%s\t%.1f\t%s\t%.1f\t", Amount(float64(e.Flat), t.Unit), t.percent(e.Flat), Amount(float64(e.Cum), t.Unit), t.percent(e.Cum))
		if calls > 0 {
			fmt.Fprintf(tw, "%s\t%s\t", Amount(float64(e.Flat)/calls, t.Unit), Amount(float64(e.Cum)/calls, t.Unit))
		}
		fmt.Fprintf(tw, "  %s\n", e.Name)
	}
	return tw.Flush()
}

func (t *Table) percent(v int64) float64 {
	if t.Total == 0 {
		return 0
	}
	return 100 * float64(v) / float64(t.Total)
}

// Amount writes a value with its unit, scaled for reading.
func Amount(v float64, unit string) string {
	scale := func(steps []float64, units []string) string {
		for i, s := range steps {
			if v >= s {
				return fmt.Sprintf("%.3g %s", v/s, units[i])
			}
		}
		return fmt.Sprintf("%.3g %s", v, units[len(units)-1])
	}
	switch unit {
	case "nanoseconds":
		return scale([]float64{1e9, 1e6, 1e3}, []string{"s", "ms", "µs", "ns"})
	case "bytes":
		return scale([]float64{1 << 30, 1 << 20, 1 << 10}, []string{"GiB", "MiB", "KiB", "B"})
	default:
		return fmt.Sprintf("%.4g", v)
	}
}
