package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"quire/tools/profile/capture"
	"quire/tools/profile/fold"
)

const (
	summaryFile = "summary.md"
	straceFile  = "syscalls.txt"
	// topLines of a table file, and shortLines of a table in the summary.
	topLines   = 80
	shortLines = 15
)

// sampled is one sample type of one profile.
type sampled struct {
	file, sampleType, title string
}

// profiles in the order of the summary.
var profiles = []sampled{
	{capture.CPU, "cpu", "CPU"},
	{capture.Allocs, "alloc_space", "Allocated bytes"},
	{capture.Allocs, "alloc_objects", "Allocated objects"},
	{capture.Heap, "inuse_space", "Heap in use at the end"},
	{capture.Block, "delay", "Time blocked"},
	{capture.Mutex, "delay", "Time waited for mutexes"},
}

// write folds everything and writes the summary.
func (r *record) write() (err error) {
	file, err := os.Create(filepath.Join(r.dir, summaryFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	calls := fold.Grown(r.window.Before, r.window.After, "grpc_server_handled_total", "grpc_method")
	total := 0.0
	for _, c := range calls {
		total += c.Grown
	}
	fmt.Fprintf(file, "# %s\n\n", r.cfg.name)
	r.writeRun(file, calls, total)
	r.writeDurable(file)
	for _, p := range profiles {
		if err := r.writeProfile(file, p, total); err != nil {
			return err
		}
	}
	return r.writeSyscalls(file)
}

// writeRun says what ran and what it did.
func (r *record) writeRun(w io.Writer, calls []fold.Rate, total float64) {
	d := r.window
	fmt.Fprintf(w, "A window of %.1f s", d.Seconds)
	if len(r.cfg.load) > 0 {
		fmt.Fprintf(w, " under `%s` (its output: load.txt)", strings.Join(append([]string{filepath.Base(r.cfg.load[0])}, r.cfg.load[1:]...), " "))
	}
	fmt.Fprint(w, ".\n\n| what | in the window | per second | per call |\n|---|---|---|---|\n")
	line := func(name string, v float64, unit string) {
		perCall := "–"
		if total > 0 {
			perCall = fold.Amount(v/total, unit)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", name, fold.Amount(v, unit), fold.Amount(v/d.Seconds, unit), perCall)
	}
	for _, c := range calls {
		line("calls of "+c.Label, c.Grown, "count")
	}
	if len(calls) == 0 {
		fmt.Fprintf(w, "| calls (none ended; streams end with their connection) | 0 | 0 | – |\n")
	}
	if r.cfg.server.PID != 0 {
		a, b := d.ProcBefore, d.ProcAfter
		line("context switches, voluntary", float64(b.Voluntary-a.Voluntary), "count")
		line("context switches, involuntary", float64(b.Involuntary-a.Involuntary), "count")
		line("written to disk", float64(b.WriteBytes-a.WriteBytes), "bytes")
		line("read from disk", float64(b.ReadBytes-a.ReadBytes), "bytes")
		fmt.Fprintf(w, "\nAt the end: %d threads, %s resident, of it %s without mapped files.\n", b.Threads, fold.Amount(float64(b.RSSBytes), "bytes"), fold.Amount(float64(b.AnonBytes), "bytes"))
	}
}

// durable are the histograms of durable writes, in seconds.
var durable = []struct{ name, title string }{
	{"etcd_disk_wal_fsync_duration_seconds", "durable write of the log"},
	{"etcd_disk_backend_commit_duration_seconds", "commit of the backend"},
}

func (r *record) writeDurable(w io.Writer) {
	fmt.Fprint(w, "\n## Durable writes\n\n| what | number | mean | p50 | p90 | p99 |\n|---|---|---|---|---|---|\n")
	for _, m := range durable {
		h, ok := fold.HistogramOf(r.window.Before, r.window.After, m.name)
		if !ok {
			fmt.Fprintf(w, "| %s | not measured by the server | | | | |\n", m.title)
			continue
		}
		if h.Count == 0 {
			fmt.Fprintf(w, "| %s | 0 | | | | |\n", m.title)
			continue
		}
		nanos := func(seconds float64) string { return fold.Amount(seconds*1e9, "nanoseconds") }
		fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %s |\n", m.title, h.Count, nanos(h.Mean()), nanos(h.Quantile(0.5)), nanos(h.Quantile(0.9)), nanos(h.Quantile(0.99)))
	}
	fmt.Fprint(w, "\nQuantiles are interpolated inside the histogram's buckets.\n")
}

// writeProfile writes a table file and its head into the summary.
func (r *record) writeProfile(w io.Writer, p sampled, calls float64) (err error) {
	fmt.Fprintf(w, "\n## %s\n\n", p.title)
	if missing := r.window.Missing[p.file]; missing != nil {
		fmt.Fprintf(w, "Not captured: %v.\n", missing)
		return nil
	}
	t, err := fold.Load(filepath.Join(r.dir, p.file), p.sampleType)
	if err != nil {
		return fmt.Errorf("%s: %w", p.file, err)
	}
	if t.Total == 0 {
		fmt.Fprint(w, "Nothing was sampled; the server may have this profile switched off.\n")
		return nil
	}
	if p.file == capture.Heap {
		calls = 0 // what is held is not spent on the calls of the window
	}
	name := strings.TrimSuffix(p.file, ".pprof") + "-" + p.sampleType + ".txt"
	file, err := os.Create(filepath.Join(r.dir, name))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	for _, part := range []struct {
		title   string
		entries []fold.Entry
	}{{"packages, by flat", t.Packages}, {"functions, by flat", t.Functions}, {"functions, by cum", fold.ByCum(t.Functions)}} {
		fmt.Fprintf(file, "%s\n\n", part.title)
		if err := t.Write(file, part.entries, topLines, calls); err != nil {
			return err
		}
		fmt.Fprintln(file)
	}
	perCall := ""
	if calls > 0 {
		perCall = ", " + fold.Amount(float64(t.Total)/calls, t.Unit) + " per call"
	}
	fmt.Fprintf(w, "%s in total%s. More lines: %s; raw: `go tool pprof %s`.\n\n```\n", fold.Amount(float64(t.Total), t.Unit), perCall, name, p.file)
	if err := t.Write(w, t.Packages, shortLines, calls); err != nil {
		return err
	}
	fmt.Fprintln(w)
	if err := t.Write(w, t.Functions, shortLines, calls); err != nil {
		return err
	}
	fmt.Fprint(w, "```\n")
	return nil
}

// writeSyscalls copies strace's table.
func (r *record) writeSyscalls(w io.Writer) error {
	fmt.Fprint(w, "\n## System calls\n\n")
	if r.strace != nil {
		fmt.Fprintf(w, "Not counted: %v.\n", r.strace)
		return nil
	}
	text, err := os.ReadFile(filepath.Join(r.dir, straceFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(string(text), "\n")
	fmt.Fprintf(w, "Over %v, behind the window, with the server slowed by strace: compare the counts, not the times.\n\n```\n%s```\n",
		r.cfg.strace, strings.Join(lines[:min(len(lines), 2+shortLines)], ""))
	return nil
}
