package main

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	c, err := parse(strings.Fields("-workload put@1x1,list -pid 12,34 -value-size 100 -duration 3s -client-cpus 1 -json x/y.json"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.specs) != 2 || c.specs[0].ValueBytes != 100 || c.specs[1].Page != 500 || len(c.pids) != 2 || c.window != 3*time.Second {
		t.Errorf("got %+v", c)
	}
	if want := "bench -client-cpus 1 -duration 3s -json result.json -pid 12,34 -value-size 100 -workload put@1x1,list"; c.command != want {
		t.Errorf("the command to repeat is %q, want %q", c.command, want)
	}
}

func TestParseReportsEveryFault(t *testing.T) {
	_, err := parse(strings.Fields("-versus -rounds -4 -workload put,nonsense -duration 9h -pid x -server-cpus 3-1"), io.Discard)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"-rounds", "nonsense", "-duration", "-pid", "-server-cpus"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not reported in: %v", want, err)
		}
	}
	if _, err := parse([]string{"-h"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h gave %v", err)
	}
	if _, err := parse([]string{"stray"}, io.Discard); err == nil {
		t.Error("accepted a stray argument")
	}
}

func TestDefaultsAreValid(t *testing.T) {
	for _, args := range []string{"", "-versus"} {
		if _, err := parse(strings.Fields(args), io.Discard); err != nil {
			t.Errorf("%q: %v", args, err)
		}
	}
}
