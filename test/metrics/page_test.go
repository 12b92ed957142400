package metrics

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"quire/test/harness"
)

// family is one metric of a page.
type family struct {
	kind   string
	labels map[string]bool    // sets of label names, each as a text
	bounds map[string]bool    // of a histogram's buckets
	values map[string]float64 // by name and labels; of a histogram its count and sum
}

type page map[string]*family

var sample = regexp.MustCompile(`^([a-zA-Z0-9_:]+)(?:\{(.*)\})? (\S+)$`)
var label = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)

// read takes a server's page.
func read(t *testing.T, s *harness.Server) page {
	t.Helper()
	resp, err := http.Get("http://" + s.Endpoint + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	p := page{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, kind, _ := strings.Cut(rest, " ")
			p[name] = &family{kind: kind, labels: map[string]bool{}, bounds: map[string]bool{}, values: map[string]float64{}}
		} else if line != "" && line[0] != '#' {
			p.add(t, line)
		}
	}
	return p
}

func (p page) add(t *testing.T, line string) {
	t.Helper()
	m := sample.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("not a sample: %s", line)
	}
	name, value := m[1], m[3]
	f := p[name]
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if f == nil {
			f = p[strings.TrimSuffix(name, suffix)]
		}
	}
	if f == nil {
		t.Fatalf("a sample without a type: %s", line)
	}
	var names, pairs []string
	for _, l := range label.FindAllStringSubmatch(m[2], -1) {
		if l[1] == "le" {
			f.bounds[l[2]] = true
			return // buckets have the labels of their histogram's count
		}
		names = append(names, l[1])
		pairs = append(pairs, fmt.Sprintf("%s=%q", l[1], anyID.ReplaceAllString(l[2], "ID")))
	}
	slices.Sort(names)
	f.labels[strings.Join(names, ",")] = true
	v, err := strconv.ParseFloat(value, 64)
	if err != nil {
		t.Fatal(err)
	}
	f.values[name+"{"+strings.Join(pairs, ",")+"}"] = v
}

// anyID is a member's id, which each server has of its own.
var anyID = regexp.MustCompile(`^[0-9a-f]{14,16}$`)
