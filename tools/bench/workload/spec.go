package workload

import (
	"errors"
	"fmt"
	"sort"
	"strconv"
	"strings"
)

// Spec is a workload in a shape. The zero value of a field means the
// workload's default.
type Spec struct {
	Name    string  `json:"name"`
	Conns   int     `json:"connections"`
	Streams int     `json:"streams_per_connection"`
	Rate    float64 `json:"rate_per_second,omitempty"` // open loop; 0 is a closed loop

	Keys       int `json:"keys"`
	KeyBytes   int `json:"key_bytes"`
	ValueBytes int `json:"value_bytes"`
	LoadBatch  int `json:"load_batch"` // puts per transaction while the key space is written

	Page         int  `json:"page,omitempty"`          // list: keys per page
	Watchers     int  `json:"watchers,omitempty"`      // watch: in total
	WatchStreams int  `json:"watch_streams,omitempty"` // watch: streams they are spread over
	PrevKV       bool `json:"prev_kv,omitempty"`       // watch: ask for the previous pair
	Mix          Mix  `json:"mix,omitempty"`           // mixed: weight of each operation

	Seed uint64 `json:"seed"`
}

// Mix gives each operation of a mixed workload its weight.
type Mix map[string]int

// Limits of a Spec. They keep a typing error from filling a disk or a memory.
const (
	maxConns      = 2000
	maxWorkers    = 20000
	maxKeys       = 100_000_000
	maxKeyBytes   = 4096
	maxValueBytes = 8 << 20
	maxLoadBatch  = 10_000
	maxPage       = 100_000
	maxWatchers   = 200_000
	maxRate       = 2_000_000
)

// defaults that hold for every workload unless its definition says otherwise.
var common = Spec{
	Conns: 10, Streams: 10, Keys: 10_000, KeyBytes: 32, ValueBytes: 256, LoadBatch: 100, Seed: 1,
}

// Parse reads NAME[@CxS][:option=value…]. What the text does not say comes from
// base, then from the workload, then from the common defaults.
func Parse(text string, base Spec) (Spec, error) {
	head, options, _ := strings.Cut(text, ":")
	name, shape, shaped := strings.Cut(head, "@")
	def, ok := definitions[name]
	if !ok {
		return Spec{}, fmt.Errorf("workload %q is not known; there are %s", name, strings.Join(Names(), ", "))
	}
	s := base
	s.Name = name
	if shaped {
		if _, err := fmt.Sscanf(shape, "%dx%d", &s.Conns, &s.Streams); err != nil {
			return Spec{}, fmt.Errorf("workload %q: shape %q is not CONNECTIONSxSTREAMS", text, shape)
		}
	}
	if options != "" {
		for _, o := range strings.Split(options, ":") {
			if err := s.set(o); err != nil {
				return Spec{}, fmt.Errorf("workload %q: %w", text, err)
			}
		}
	}
	s.fill(def.defaults)
	s.fill(common)
	if err := s.validate(); err != nil {
		return Spec{}, fmt.Errorf("workload %q: %w", text, err)
	}
	return s, nil
}

// set applies one option=value.
func (s *Spec) set(option string) error {
	name, value, ok := strings.Cut(option, "=")
	if !ok {
		return fmt.Errorf("option %q has no value", option)
	}
	ints := map[string]*int{
		"keys": &s.Keys, "key": &s.KeyBytes, "value": &s.ValueBytes, "batch": &s.LoadBatch,
		"page": &s.Page, "watchers": &s.Watchers, "watch-streams": &s.WatchStreams,
	}
	var err error
	switch p := ints[name]; {
	case p != nil:
		*p, err = strconv.Atoi(value)
	case name == "rate":
		s.Rate, err = strconv.ParseFloat(value, 64)
	case name == "seed":
		s.Seed, err = strconv.ParseUint(value, 10, 64)
	case name == "prev":
		s.PrevKV, err = strconv.ParseBool(value)
	case name == "mix":
		s.Mix, err = parseMix(value)
	default:
		return fmt.Errorf("option %q is not known; there are keys, key, value, batch, page, watchers, watch-streams, prev, rate, mix, seed", name)
	}
	if err != nil {
		return fmt.Errorf("option %q: %w", option, err)
	}
	return nil
}

// parseMix reads name*weight+name*weight.
func parseMix(text string) (Mix, error) {
	m := Mix{}
	for _, part := range strings.Split(text, "+") {
		name, weight, ok := strings.Cut(part, "*")
		n, err := strconv.Atoi(weight)
		if !ok || err != nil || n <= 0 {
			return nil, fmt.Errorf("%q is not OPERATION*WEIGHT", part)
		}
		if !mixable[name] {
			return nil, fmt.Errorf("%q cannot be part of a mix", name)
		}
		m[name] = n
	}
	return m, nil
}

// fill takes from d what s leaves at zero.
func (s *Spec) fill(d Spec) {
	for _, f := range []struct{ to, from *int }{
		{&s.Conns, &d.Conns}, {&s.Streams, &d.Streams}, {&s.Keys, &d.Keys}, {&s.KeyBytes, &d.KeyBytes},
		{&s.ValueBytes, &d.ValueBytes}, {&s.LoadBatch, &d.LoadBatch}, {&s.Page, &d.Page},
		{&s.Watchers, &d.Watchers}, {&s.WatchStreams, &d.WatchStreams},
	} {
		if *f.to == 0 {
			*f.to = *f.from
		}
	}
	if s.Seed == 0 {
		s.Seed = d.Seed
	}
	if s.Mix == nil {
		s.Mix = d.Mix
	}
}

// Workers is the number of concurrent operations.
func (s Spec) Workers() int { return s.Conns * s.Streams }

// Label is the short name of the shape, for tables.
func (s Spec) Label() string {
	label := fmt.Sprintf("%s@%dx%d", s.Name, s.Conns, s.Streams)
	if s.Rate > 0 {
		label += fmt.Sprintf(":rate=%g", s.Rate)
	}
	return label
}

// String is the text from which Parse makes the same Spec.
func (s Spec) String() string {
	text := fmt.Sprintf("%s:keys=%d:key=%d:value=%d:batch=%d:seed=%d", s.Label(), s.Keys, s.KeyBytes, s.ValueBytes, s.LoadBatch, s.Seed)
	if s.Page > 0 {
		text += fmt.Sprintf(":page=%d", s.Page)
	}
	if s.Watchers > 0 {
		text += fmt.Sprintf(":watchers=%d:watch-streams=%d:prev=%t", s.Watchers, s.WatchStreams, s.PrevKV)
	}
	if len(s.Mix) > 0 {
		var parts []string
		for name, weight := range s.Mix {
			parts = append(parts, fmt.Sprintf("%s*%d", name, weight))
		}
		sort.Strings(parts)
		text += ":mix=" + strings.Join(parts, "+")
	}
	return text
}

// validate reports every fault at once.
func (s Spec) validate() error {
	var errs []error
	bound := func(what string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("%s is %d, must be from %d to %d", what, v, low, high))
		}
	}
	bound("connections", s.Conns, 1, maxConns)
	bound("streams per connection", s.Streams, 1, maxWorkers)
	bound("connections × streams", s.Workers(), 1, maxWorkers)
	bound("keys", s.Keys, 1, maxKeys)
	bound("key bytes", s.KeyBytes, minKeyBytes, maxKeyBytes)
	bound("value bytes", s.ValueBytes, minValueBytes, maxValueBytes)
	bound("load batch", s.LoadBatch, 1, maxLoadBatch)
	bound("page", s.Page, 0, maxPage)
	bound("watchers", s.Watchers, 0, maxWatchers)
	bound("watch streams", s.WatchStreams, 0, max(s.Watchers, 0))
	if s.Rate < 0 || s.Rate > maxRate {
		errs = append(errs, fmt.Errorf("rate is %g, must be from 0 to %d", s.Rate, maxRate))
	}
	if ownsKeys(s) && s.Keys < s.Workers() {
		errs = append(errs, fmt.Errorf("%d workers need at least as many keys, have %d", s.Workers(), s.Keys))
	}
	return errors.Join(errs...)
}
