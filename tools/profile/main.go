package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quire/tools/profile/capture"
)

// config is the command line.
type config struct {
	server capture.Server
	name   string
	out    string
	warmUp time.Duration
	window time.Duration
	strace time.Duration
	load   []string
}

func main() {
	cfg, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, cfg)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "profile:", err)
		os.Exit(1)
	}
}

// parse reads the arguments; what is wrong with them is reported all at once.
func parse(args []string, out io.Writer) (config, error) {
	var c config
	var endpoint, metrics string
	fs := flag.NewFlagSet("profile", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprint(out, "profile [flags] [-- load command]\n\nCaptures profiles of a running server, under the load of the command if there is one, and folds them.\n\n")
		fs.PrintDefaults()
	}
	fs.StringVar(&endpoint, "endpoint", "http://127.0.0.1:2379", "`URL` of the server, started with --enable-pprof")
	fs.StringVar(&metrics, "metrics", "", "`URL` of its metrics, if elsewhere")
	fs.IntVar(&c.server.PID, "pid", 0, "its `process id`, for context switches, disk traffic and strace")
	fs.StringVar(&c.name, "name", "", "`name` of the run; the folder is OUT/NAME and must not exist")
	fs.StringVar(&c.out, "out", "profiles", "`directory` for the folders of runs")
	fs.DurationVar(&c.warmUp, "warm-up", 2*time.Second, "`time` between the start of the load and the window")
	fs.DurationVar(&c.window, "seconds", 10*time.Second, "length of the window, a `time` like 10s")
	fs.DurationVar(&c.strace, "strace", 3*time.Second, "`time` during which system calls are counted, behind the window; 0 leaves it out")
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	c.load = fs.Args()
	var errs []error
	if c.name == "" || c.name != filepath.Base(c.name) || strings.HasPrefix(c.name, ".") {
		errs = append(errs, fmt.Errorf("-name: %q is not the name of a folder", c.name))
	}
	if c.window < time.Second || c.window > capture.MaxWindow {
		errs = append(errs, fmt.Errorf("-seconds: is %v, must be from 1s to %v", c.window, capture.MaxWindow))
	}
	if c.strace < 0 || c.strace > capture.MaxWindow || c.warmUp < 0 || c.warmUp > capture.MaxWindow {
		errs = append(errs, fmt.Errorf("-strace and -warm-up: are %v and %v, must be from 0 to %v", c.strace, c.warmUp, capture.MaxWindow))
	}
	if !strings.Contains(endpoint, "://") {
		endpoint = "http://" + endpoint
	}
	c.server.URL = strings.TrimRight(endpoint, "/")
	c.server.MetricsURL = c.server.URL
	if metrics != "" {
		c.server.MetricsURL = strings.TrimRight(metrics, "/")
	}
	return c, errors.Join(errs...)
}

// run captures and folds.
func run(ctx context.Context, cfg config) (err error) {
	dir := filepath.Join(cfg.out, cfg.name)
	if err := os.MkdirAll(cfg.out, 0o755); err != nil {
		return fmt.Errorf("making the output directory: %w", err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return fmt.Errorf("making the folder of the run: %w", err)
	}
	l, err := startLoad(cfg.load, filepath.Join(dir, "load.txt"))
	if err != nil {
		return err
	}
	r := &record{cfg: cfg, dir: dir}
	err = r.capture(ctx, l)
	err = errors.Join(err, l.finish(ctx, err == nil))
	if err != nil {
		return err
	}
	if err := r.write(); err != nil {
		return err
	}
	fmt.Println(filepath.Join(dir, summaryFile))
	return nil
}

// record is one run's data.
type record struct {
	cfg    config
	dir    string
	window *capture.Window
	strace error // why there is no table of system calls
}

// capture takes the windows one after the other.
func (r *record) capture(ctx context.Context, l *load) error {
	if err := l.during(ctx, r.cfg.warmUp); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "profiling for %v\n", r.cfg.window)
	var err error
	if r.window, err = capture.Take(ctx, r.cfg.server, r.dir, r.cfg.window); err != nil {
		return err
	}
	switch {
	case r.cfg.server.PID == 0:
		r.strace = errors.New("no -pid was given")
	case r.cfg.strace == 0:
		r.strace = errors.New("-strace is 0")
	default:
		fmt.Fprintf(os.Stderr, "counting system calls for %v\n", r.cfg.strace)
		r.strace = capture.Strace(ctx, r.cfg.server.PID, filepath.Join(r.dir, straceFile), r.cfg.strace)
	}
	if err := l.during(ctx, 0); err != nil {
		return err
	}
	return ctx.Err()
}
