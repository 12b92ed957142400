package workload

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	s, err := Parse("put@3x7:value=1024:rate=500:seed=9", Spec{Keys: 77})
	want := Spec{Name: "put", Conns: 3, Streams: 7, Rate: 500, Keys: 77, KeyBytes: 32, ValueBytes: 1024, LoadBatch: 100, Seed: 9}
	if err != nil || !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v, %v\nwant %+v", s, err, want)
	}
	if s.Label() != "put@3x7:rate=500" || s.Workers() != 21 {
		t.Errorf("label %s, workers %d", s.Label(), s.Workers())
	}
	if s, err = Parse("list", Spec{}); err != nil || s.Keys != 20000 || s.Page != 500 || s.Conns != 2 {
		t.Errorf("list has not its own defaults: %+v, %v", s, err)
	}
}

func TestParseReadsString(t *testing.T) {
	for _, name := range Names() {
		s, err := Parse(name+"@2x3", Spec{})
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(s.String(), Spec{})
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Errorf("%s gives %+v, %v\nwant %+v", s, again, err, s)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"nothing":                              "not known",
		"put@x":                                "shape",
		"put@0x5:conns=1":                      "not known",
		"put:value":                            "no value",
		"put:value=x":                          "value=x",
		"put:value=4":                          "value bytes is 4",
		"put:keys=-3":                          "keys is -3",
		"put:rate=-1":                          "rate is -1",
		"put@5000x1":                           "connections is 5000",
		"txn-update:keys=5":                    "at least as many keys",
		"mixed:mix=watch*3":                    "cannot be part",
		"mixed:mix=put":                        "OPERATION*WEIGHT",
		"watch:watch-streams=99999:watchers=3": "watch streams",
	} {
		if _, err := Parse(text, Spec{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gave %v, want something about %q", text, err, want)
		}
	}
}

func TestKeys(t *testing.T) {
	k := newKeySpace("1000", 32)
	for n, want := range map[int64]string{0: "/bench/1000/00000000000000000000", 123: "/bench/1000/00000000000000000123"} {
		if got := string(k.append(nil, n)); got != want || len(got) != 32 {
			t.Errorf("key %d is %q, want %q", n, got, want)
		}
	}
	if end := string(k.end()); end != "/bench/10000" {
		t.Errorf("end is %q", end)
	}
}

func TestOwnKeysArePartition(t *testing.T) {
	spec := Spec{Conns: 1, Streams: 7, Keys: 23, ValueBytes: 8, Seed: 1}
	owner := map[int64]int{}
	for i := range 7 {
		w := &worker{target: &target{spec: spec}, index: i, rng: generator(1, i)}
		for range 200 {
			n := w.ownKey()
			if other, taken := owner[n]; n < 0 || n >= 23 || (taken && other != i) {
				t.Fatalf("worker %d got key %d, which is %d's", i, n, other)
			}
			owner[n] = i
		}
	}
	if len(owner) != 23 {
		t.Errorf("%d of 23 keys are used", len(owner))
	}
}
