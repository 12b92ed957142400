package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// result is how one test or subtest ended.
type result struct {
	name    string
	outcome string // pass, fail, skip
	seconds float64
	output  string
}

// keepOutput bounds what is kept of one test's output; the log has all of it.
const keepOutput = 256 << 10

// event is a line of test2json.
type event struct {
	Action, Test, Output string
	Elapsed              float64
}

// runTests runs the test binary and calls each as soon as a test has ended.
func runTests(ctx context.Context, o options, b binaries, each func(result)) ([]result, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	log, err := os.Create(filepath.Join(o.work, logName))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	args := []string{"tool", "test2json", "-t", b.tests, "-test.v=test2json", "-test.timeout", o.timeout.String(), "-bin-dir", b.dir}
	if o.run != "" {
		args = append(args, "-test.run", o.run)
	}
	if o.skip != "" {
		args = append(args, "-test.skip", o.skip)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = b.source
	cmd.Env = append(os.Environ(), "PWD="+b.source)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	results, readErr := collect(io.TeeReader(out, log), each)
	// The test binary's own exit code says only whether something failed.
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return results, fmt.Errorf("stopped after %d tests: %w", len(results), ctx.Err())
	case readErr != nil:
		return results, readErr
	case len(results) == 0:
		return nil, fmt.Errorf("no test ran, see %s: %w", log.Name(), errors.Join(err, errNothing))
	case err != nil && !errors.As(err, &exit):
		return results, err
	}
	return results, nil
}

var errNothing = errors.New("no results")

// collect turns test2json's lines into results, in the order in which the tests ended.
func collect(r io.Reader, each func(result)) (results []result, err error) {
	output := map[string]*strings.Builder{}
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil && e.Test != "" {
				results = take(results, output, e, each)
			}
		}
		if errors.Is(err, io.EOF) {
			return results, nil
		}
		if err != nil {
			return results, err
		}
	}
}

func take(results []result, output map[string]*strings.Builder, e event, each func(result)) []result {
	switch e.Action {
	case "output":
		b := output[e.Test]
		if b == nil {
			b = new(strings.Builder)
			output[e.Test] = b
		}
		if b.Len() < keepOutput {
			b.WriteString(e.Output)
		}
	case "pass", "fail", "skip":
		res := result{name: e.Test, outcome: e.Action, seconds: e.Elapsed}
		if b := output[e.Test]; b != nil && e.Action == "fail" {
			res.output = b.String()
		}
		delete(output, e.Test)
		each(res)
		results = append(results, res)
	}
	return results
}
