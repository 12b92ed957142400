package cpuset

import (
	"os/exec"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]string{"": "", "0": "0", "0,2-4": "0,2,3,4"} {
		s, err := Parse(text)
		if err != nil || s.String() != want {
			t.Errorf("%q gave %q, %v", text, s, err)
		}
	}
	for _, text := range []string{"x", "3-1", "-1", "0,,1", "5000"} {
		if _, err := Parse(text); err == nil {
			t.Errorf("accepted %q", text)
		}
	}
}

func TestStartPinsTheChildOnly(t *testing.T) {
	allowed := func(start func(*exec.Cmd) error) string {
		var out strings.Builder
		cmd := exec.Command("grep", "Cpus_allowed_list", "/proc/self/status")
		cmd.Stdout = &out
		if err := start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(strings.TrimPrefix(out.String(), "Cpus_allowed_list:"))
	}
	before := allowed((*exec.Cmd).Start)
	first, _, _ := strings.Cut(before, ",")
	first, _, _ = strings.Cut(first, "-")
	s, err := Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	if got := allowed(s.Start); got != first {
		t.Errorf("the child may run on %s, want %s", got, first)
	}
	if after := allowed((*exec.Cmd).Start); after != before {
		t.Errorf("later children may run on %s, want %s", after, before)
	}
}
