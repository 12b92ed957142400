package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"quire/tools/bench/client"
	"quire/tools/bench/cpuset"
	"quire/tools/bench/versus"
	"quire/tools/bench/workload"
)

// config is the command line.
type config struct {
	list      bool
	versus    bool
	workloads []string
	base      workload.Spec
	client    client.Options
	pids      []int
	warmUp    time.Duration
	window    time.Duration
	ops       int64
	json      string
	html      string

	clientCPUs cpuset.Set
	sides      versus.Options

	specs   []workload.Spec
	command string // that repeats this one, without paths
}

// Limits of a run.
const (
	maxWindow = time.Hour
	maxWarmUp = 10 * time.Minute
)

// parse reads the arguments; what is wrong with them is reported all at once.
func parse(args []string, out io.Writer) (config, error) {
	var c config
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(out)
	fs.Usage = func() {
		fmt.Fprint(out, "bench loads etcd endpoints with named workloads, or compares quire with upstream etcd (-versus).\n\n")
		fs.PrintDefaults()
	}
	texts := c.bind(fs)
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	if fs.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	c.command = repeatable(fs)
	return c, errors.Join(c.take(texts)...)
}

// placeholders stand for flags whose values are paths of this machine.
var placeholders = map[string]string{
	"quire": "QUIRE", "upstream": "ETCD", "dir": "DIR", "json": "result.json", "html": "report.html",
	"cacert": "CA", "cert": "CERT", "cert-key": "KEY",
}

// repeatable is the command line with the flags that were set.
func repeatable(fs *flag.FlagSet) string {
	text := "bench"
	fs.Visit(func(f *flag.Flag) {
		value := f.Value.String()
		if p, ok := placeholders[f.Name]; ok {
			value = p
		}
		switch {
		case value == "true":
			text += " -" + f.Name
		case strings.ContainsAny(value, " *"):
			text += fmt.Sprintf(" -%s '%s'", f.Name, value)
		default:
			text += fmt.Sprintf(" -%s %s", f.Name, value)
		}
	})
	return text
}

// texts are flags that need parsing of their own.
type texts struct {
	workloads, endpoints, pids                        string
	clientCPUs, serverCPUs, quireFlags, upstreamFlags string
}

func (c *config) bind(fs *flag.FlagSet) *texts {
	t := &texts{}
	fs.BoolVar(&c.list, "list", false, "list the workloads and end")
	fs.StringVar(&t.workloads, "workload", "", "comma-separated `workloads`, each NAME[@CONNSxSTREAMS][:option=value…]; default: put,range,list, or with -versus a set that covers every kind")
	fs.StringVar(&t.endpoints, "endpoints", "127.0.0.1:2379", "comma-separated `addresses` of the server under load")
	fs.BoolVar(&c.client.AllowRemote, "allow-remote", false, "permit endpoints that are not on the loopback")
	fs.BoolVar(&c.client.Light, "light", false, "use a client that needs a fraction of grpc-go's processor time")
	fs.StringVar(&c.client.CAFile, "cacert", "", "`file` with the CA of the server; switches TLS on")
	fs.StringVar(&c.client.CertFile, "cert", "", "`file` with the client's certificate")
	fs.StringVar(&c.client.KeyFile, "cert-key", "", "`file` with the client's key")
	fs.StringVar(&t.pids, "pid", "", "comma-separated `process ids` of the server, for CPU and memory")

	fs.IntVar(&c.base.Conns, "conns", 0, "connections (default 10, or the workload's own)")
	fs.IntVar(&c.base.Streams, "streams", 0, "concurrent operations per connection (default 10, or the workload's own)")
	fs.Float64Var(&c.base.Rate, "rate", 0, "operations per second of an open loop, whose latency counts from the intended start; 0 is a closed loop")
	fs.IntVar(&c.base.Keys, "keys", 0, "keys in the key space (default 10000, or the workload's own)")
	fs.IntVar(&c.base.KeyBytes, "key-size", 0, "`bytes` of a key (default 32)")
	fs.IntVar(&c.base.ValueBytes, "value-size", 0, "`bytes` of a value (default 256)")
	fs.IntVar(&c.base.LoadBatch, "load-batch", 0, "puts per transaction while the key space is written (default 100)")
	fs.IntVar(&c.base.Page, "page", 0, "list: keys per page (default 500)")
	fs.IntVar(&c.base.Watchers, "watchers", 0, "watch: watchers (default 1000)")
	fs.IntVar(&c.base.WatchStreams, "watch-streams", 0, "watch: streams they are spread over (default 100)")
	fs.BoolVar(&c.base.PrevKV, "watch-prev", false, "watch: ask for the previous pair, as Kubernetes does")
	fs.Uint64Var(&c.base.Seed, "seed", 1, "seed of everything random")

	fs.DurationVar(&c.warmUp, "warm-up", 2*time.Second, "`time` before the measured window")
	fs.DurationVar(&c.window, "duration", 10*time.Second, "measured `time`")
	fs.Int64Var(&c.ops, "ops", 0, "end the window after that many operations; 0 is no limit")
	fs.StringVar(&c.json, "json", "", "write the results as JSON to `file`")
	fs.StringVar(&t.clientCPUs, "client-cpus", "", "run this program on these `processors`, for example 1")

	fs.BoolVar(&c.versus, "versus", false, "start quire and upstream etcd in turn and compare them")
	fs.StringVar(&c.sides.QuirePath, "quire", "", "versus: quire's `binary`; default: bin/quire of this source tree, built with make")
	fs.StringVar(&c.sides.UpstreamPath, "upstream", "", "versus: upstream's etcd `binary`; default: built from the module that upstream/go.mod pins")
	fs.StringVar(&t.quireFlags, "quire-flags", "", "versus: further space-separated `flags` for quire")
	fs.StringVar(&t.upstreamFlags, "upstream-flags", "", "versus: further space-separated `flags` for upstream")
	fs.IntVar(&c.sides.Rounds, "rounds", 3, "versus: rounds of quire, upstream; medians and paired ratios are taken over them")
	fs.IntVar(&c.sides.Members, "members", 1, "versus: members of each cluster; the workloads go to all of them")
	fs.IntVar(&c.sides.Failovers, "failovers", 5, "versus with -members: how often the leader is killed under load")
	fs.IntVar(&c.sides.CatchUpKeys, "catch-up-keys", 1_000_000, "versus with -members: keys with values of 1 KiB that a wiped member catches up with; 0 leaves it out")
	fs.IntVar(&c.sides.CatchUps, "catch-ups", 3, "versus with -members: how often a member is wiped")
	fs.StringVar(&c.sides.Dir, "dir", "", "versus: `directory` below which both keep their data, on the disk to be measured; default: the temporary directory")
	fs.StringVar(&t.serverCPUs, "server-cpus", "", "versus: run the servers on these `processors`, for example 0")
	fs.Int64Var(&c.sides.QuotaBytes, "quota", 8<<30, "versus: --quota-backend-bytes of both, in `bytes`")
	fs.IntVar(&c.sides.CapacityKeys, "capacity-keys", 1_000_000, "versus: keys for the memory, disk and restart figures; 0 leaves them out")
	fs.IntVar(&c.sides.CapacityRounds, "capacity-rounds", 1, "versus: rounds of the capacity part")
	fs.IntVar(&c.sides.Restarts, "restarts", 3, "versus: restarts of each kind (SIGTERM, SIGKILL) in a capacity round")
	fs.StringVar(&c.html, "html", "", "versus: write the report to `file`")
	return t
}

// take parses the texts and checks the bounds.
func (c *config) take(t *texts) []error {
	var errs []error
	check := func(flag string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("-%s: %w", flag, err))
		}
	}
	c.client.Endpoints = strings.Split(t.endpoints, ",")
	if t.pids != "" {
		for _, text := range strings.Split(t.pids, ",") {
			pid, err := strconv.Atoi(text)
			check("pid", err)
			c.pids = append(c.pids, pid)
		}
	}
	var err error
	c.clientCPUs, err = cpuset.Parse(t.clientCPUs)
	check("client-cpus", err)
	c.sides.ServerCPUs, err = cpuset.Parse(t.serverCPUs)
	check("server-cpus", err)
	c.sides.QuireFlags, c.sides.UpstreamFlags = strings.Fields(t.quireFlags), strings.Fields(t.upstreamFlags)

	if c.window <= 0 || c.window > maxWindow {
		check("duration", fmt.Errorf("is %v, must be over 0 and at most %v", c.window, maxWindow))
	}
	if c.warmUp < 0 || c.warmUp > maxWarmUp {
		check("warm-up", fmt.Errorf("is %v, must be from 0 to %v", c.warmUp, maxWarmUp))
	}
	if c.ops < 0 {
		check("ops", fmt.Errorf("is %d, cannot be negative", c.ops))
	}
	if c.versus {
		errs = append(errs, c.sides.Validate()...)
	}
	c.workloads = strings.Split(t.workloads, ",")
	if t.workloads == "" {
		c.workloads = []string{"put", "range", "list"}
		if c.versus {
			c.workloads = versus.DefaultWorkloads
		}
	}
	for _, text := range c.workloads {
		spec, err := workload.Parse(text, c.base)
		check("workload", err)
		c.specs = append(c.specs, spec)
	}
	return errs
}
