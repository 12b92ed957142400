package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"quire/tools/bench/progress"
	"quire/tools/bench/report"
	"quire/tools/bench/result"
	"quire/tools/bench/trial"
	"quire/tools/bench/versus"
	"quire/tools/bench/workload"
)

// gcPercent makes the client collect its garbage rarely: its heap is small and
// its processor is better spent on load.
const gcPercent = 400

func main() {
	cfg, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		debug.SetGCPercent(gcPercent)
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, cfg)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, cfg config) error {
	if cfg.list {
		for _, name := range workload.Names() {
			fmt.Printf("%-20s %s\n", name, workload.About(name))
		}
		return nil
	}
	if err := cfg.clientCPUs.PinSelf(); err != nil {
		return err
	}
	show := progress.New(os.Stderr)
	defer show.End()
	if cfg.versus {
		return compare(ctx, cfg, show)
	}
	return single(ctx, cfg, show)
}

// single runs the workloads against a server that somebody else started.
func single(ctx context.Context, cfg config, show *progress.Reporter) error {
	var results []result.Result
	for _, spec := range cfg.specs {
		show.Begin(spec.Label())
		r, err := trial.Run(ctx, trial.Config{
			Client: cfg.client, PIDs: cfg.pids, Spec: spec, WarmUp: cfg.warmUp, Window: cfg.window, MaxOps: cfg.ops,
			Progress: func(ops int64, done float64) { show.Update(done, fmt.Sprintf("%d ops", ops)) },
		})
		show.End()
		if err != nil {
			return err
		}
		results = append(results, r)
	}
	if err := result.WriteTable(os.Stdout, results); err != nil {
		return err
	}
	for _, r := range results {
		if r.Errors > 0 {
			fmt.Printf("%s: %d errors, first: %s\n", r.Spec.Label(), r.Errors, r.FirstError)
		}
	}
	return writeJSON(cfg.json, results)
}

// compare runs both servers.
func compare(ctx context.Context, cfg config, show *progress.Reporter) error {
	opts := cfg.sides
	opts.Specs, opts.WarmUp, opts.Window, opts.MaxOps = cfg.specs, cfg.warmUp, cfg.window, cfg.ops
	opts.Light = cfg.client.Light
	opts.Settle = versus.DefaultSettle
	opts.ClientCPUs = cfg.clientCPUs
	opts.Command = cfg.command
	c, err := versus.Run(ctx, opts, show)
	show.End()
	if c != nil { // what was measured before an error is kept
		err = errors.Join(err, c.WriteTable(os.Stdout), writeJSON(cfg.json, c))
		if cfg.html != "" {
			err = errors.Join(err, report.WriteFile(cfg.html, c))
		}
	}
	return err
}

func writeJSON(path string, v any) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the results: %w", err)
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
