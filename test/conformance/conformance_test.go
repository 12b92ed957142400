package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// transcript is what test2json prints for a package with a failing subtest and a skipped test.
const transcript = `{"Action":"start","Package":"p"}
{"Action":"run","Test":"TestA"}
{"Action":"run","Test":"TestA/one"}
{"Action":"output","Test":"TestA/one","Output":"broken here\n"}
{"Action":"fail","Test":"TestA/one","Elapsed":0.5}
{"Action":"run","Test":"TestA/two"}
{"Action":"pass","Test":"TestA/two","Elapsed":0.25}
{"Action":"fail","Test":"TestA","Elapsed":0.75}
not a line of test2json
{"Action":"skip","Test":"TestB"}
{"Action":"pass","Test":"TestC"}
{"Action":"fail"}
`

func results(t *testing.T, s string) []result {
	t.Helper()
	rs, err := collect(strings.NewReader(s), func(result) {})
	if err != nil {
		t.Fatal(err)
	}
	return rs
}

func TestCollect(t *testing.T) {
	want := []result{
		{name: "TestA/one", outcome: "fail", seconds: 0.5, output: "broken here\n"},
		{name: "TestA/two", outcome: "pass", seconds: 0.25},
		{name: "TestA", outcome: "fail", seconds: 0.75},
		{name: "TestB", outcome: "skip"},
		{name: "TestC", outcome: "pass"},
	}
	if got := results(t, transcript); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestLeaves(t *testing.T) {
	var names []string
	for _, r := range leaves(results(t, transcript)) {
		names = append(names, r.name)
	}
	if want := []string{"TestA/one", "TestA/two", "TestB", "TestC"}; !reflect.DeepEqual(names, want) {
		t.Errorf("leaves are %v, want %v", names, want)
	}
	// A test that fails by itself counts although its subtests pass.
	got := leaves([]result{{name: "TestA/two", outcome: "pass"}, {name: "TestA", outcome: "fail"}})
	if len(got) != 2 {
		t.Errorf("a test that failed beside its subtests is not counted: %+v", got)
	}
}

func list(t *testing.T, text string) exceptions {
	t.Helper()
	path := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := readExceptions(path)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		name, transcript, list string
		ok                     bool
		says                   string
	}{
		{"an unlisted failure", transcript, "", false, "TestA/one failed"},
		{"a listed failure", transcript, "TestA/one # needs three members\n", true, "1 more failed"},
		{"a list that is too long", transcript, "TestA/.* # all of it\n", false, "a test that it covers passes"},
		{"the pattern covers the whole name", transcript, "TestA # not its subtests\n", false, "TestA/one failed"},
		{"nothing passed", `{"Action":"skip","Test":"TestB"}` + "\n", "", false, "0 passed"},
	} {
		var out strings.Builder
		if ok := summarize(&out, results(t, c.transcript), list(t, c.list), "log"); ok != c.ok || !strings.Contains(out.String(), c.says) {
			t.Errorf("%s: %v, want %v and %q in:\n%s", c.name, ok, c.ok, c.says, out.String())
		}
	}
}

func TestExceptionNeedsReason(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.txt")
	if err := os.WriteFile(path, []byte("TestA\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readExceptions(path); err == nil || !strings.Contains(err.Error(), "no reason") {
		t.Errorf("a line without a reason: %v", err)
	}
}

func TestListIsReadable(t *testing.T) {
	if _, err := readExceptions("exceptions.txt"); err != nil {
		t.Error(err)
	}
}
