package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

type options struct {
	server     string
	upstream   bool
	work       string
	exceptions string
	run, skip  string
	timeout    time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.server, "server", "", "server binary under test")
	flag.BoolVar(&o.upstream, "upstream", false, "test upstream etcd itself; the list of exceptions does not count")
	flag.StringVar(&o.work, "work", ".bin", "folder for binaries and logs")
	flag.StringVar(&o.exceptions, "exceptions", "exceptions.txt", "tests that cannot apply, with the reason")
	flag.StringVar(&o.run, "run", "", "only tests that match, as go test's -run")
	flag.StringVar(&o.skip, "skip", "", "no tests that match, as go test's -skip")
	flag.DurationVar(&o.timeout, "timeout", 40*time.Minute, "bound on the whole run")
	flag.Parse()
	if (o.server == "") == !o.upstream {
		fmt.Fprintln(os.Stderr, "conformance: give either -server or -upstream")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	ok, err := conform(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(2)
	}
	if !ok {
		os.Exit(1)
	}
}

// conform runs the stages and reports whether everything is as it should be.
func conform(ctx context.Context, o options, w io.Writer) (ok bool, err error) {
	var known exceptions
	if !o.upstream {
		if known, err = readExceptions(o.exceptions); err != nil {
			return false, err
		}
	}
	b, err := buildAll(ctx, o)
	if err != nil {
		return false, err
	}
	fmt.Fprintf(w, "running %s against %s\n", testPackage, b.server)
	results, err := runTests(ctx, o, b, func(r result) { printResult(w, r, known) })
	if err != nil {
		return false, err
	}
	return summarize(w, results, known, filepath.Join(o.work, logName)), nil
}

func printResult(w io.Writer, r result, known exceptions) {
	note := ""
	if e := known.find(r.name); e != nil && r.outcome == "fail" {
		note = "  (on the list: " + e.reason + ")"
	}
	fmt.Fprintf(w, "%-4s %6.1fs  %s%s\n", r.outcome, r.seconds, r.name, note)
}

// summarize prints what counts and reports whether the run is as expected. Only leaves count: a test with subtests
// fails because of them.
func summarize(w io.Writer, results []result, known exceptions, log string) bool {
	var passed, skipped, listed int
	var failed []result
	stale := map[*exception]bool{}
	for _, r := range leaves(results) {
		e := known.find(r.name)
		switch {
		case r.outcome == "skip":
			skipped++
		case r.outcome == "pass":
			passed++
			if e != nil {
				stale[e] = true
			}
		case e != nil:
			listed++
		default:
			failed = append(failed, r)
		}
	}
	for _, r := range failed {
		fmt.Fprintf(w, "\n--- %s failed; the end of its output (all of it: %s):\n%s\n", r.name, log, tail(r.output, 30))
	}
	for e := range stale {
		fmt.Fprintf(w, "\nthe list names %q, but a test that it covers passes: %s\n", e.pattern, e.reason)
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", passed, len(failed), skipped)
	if listed > 0 {
		fmt.Fprintf(w, "%d more failed that the list of exceptions names\n", listed)
	}
	return len(failed) == 0 && len(stale) == 0 && passed > 0
}

// leaves drops the tests that have subtests, unless they failed by themselves.
func leaves(results []result) (out []result) {
	parents := map[string]bool{}
	broken := map[string]bool{} // a subtest failed
	for _, r := range results {
		for at := strings.LastIndexByte(r.name, '/'); at > 0; at = strings.LastIndexByte(r.name[:at], '/') {
			parents[r.name[:at]] = true
			if r.outcome == "fail" {
				broken[r.name[:at]] = true
			}
		}
	}
	for _, r := range results {
		if parents[r.name] && (r.outcome != "fail" || broken[r.name]) {
			continue
		}
		out = append(out, r)
	}
	return out
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
