package versus

import (
	"errors"
	"fmt"
	"os"
	"time"

	"quire/tools/bench/cpuset"
	"quire/tools/bench/workload"
)

// Options is one comparison.
type Options struct {
	QuirePath, UpstreamPath   string // empty: built
	QuireFlags, UpstreamFlags []string

	Specs          []workload.Spec
	WarmUp, Window time.Duration
	MaxOps         int64
	Rounds         int
	Members        int // of each cluster

	// Of clusters: how often the leader is killed, and how many keys of 1 KiB a
	// wiped member has to catch up with, how often; 0 leaves it out.
	Failovers, CatchUpKeys, CatchUps int

	Light      bool   // client
	Dir        string // empty: the temporary directory
	QuotaBytes int64
	ServerCPUs cpuset.Set
	ClientCPUs cpuset.Set // only reported; the caller has pinned itself

	CapacityKeys, CapacityRounds, Restarts int
	Settle                                 time.Duration // before memory is read

	// Command is the command line that repeats the comparison.
	Command string
}

// DefaultWorkloads covers every kind of request, the three shapes that differ
// most for a server (one client; few connections with many streams; many
// connections with one), and one constant rate that upstream sustains on a
// single core.
var DefaultWorkloads = []string{
	"put@1x1", "put@10x10", "put@100x1", "put@100x10", "put@10x10:rate=4000",
	"range@1x1", "range@10x10", "range@100x1", "range-serializable@10x10", "range@10x10:rate=8000",
	"list", "txn-create@10x10", "txn-update@10x10", "watch", "watch:rate=50", "lease@10x10", "mixed@10x10",
}

// Bounds of a comparison.
const (
	maxRounds       = 100
	maxCapacityKeys = 50_000_000
	maxRestarts     = 100
	maxMembers      = 9
	// minFreeBytes on the disk before every trial, so that a benchmark never
	// fills a disk that something else lives on.
	minFreeBytes = 4 << 30
)

// Validate reports every fault at once.
func (o *Options) Validate() []error {
	var errs []error
	bound := func(name string, v, low, high int) {
		if v < low || v > high {
			errs = append(errs, fmt.Errorf("-%s: is %d, must be from %d to %d", name, v, low, high))
		}
	}
	bound("rounds", o.Rounds, 0, maxRounds)
	bound("capacity-keys", o.CapacityKeys, 0, maxCapacityKeys)
	bound("capacity-rounds", o.CapacityRounds, 0, maxRounds)
	bound("restarts", o.Restarts, 1, maxRestarts)
	bound("members", o.Members, 1, maxMembers)
	bound("failovers", o.Failovers, 0, maxRounds)
	bound("catch-ups", o.CatchUps, 0, maxRounds)
	bound("catch-up-keys", o.CatchUpKeys, 0, maxCapacityKeys)
	if o.QuotaBytes <= 0 {
		errs = append(errs, errors.New("-quota: must be positive, so that both sides have the same"))
	}
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	if info, err := os.Stat(o.Dir); err != nil {
		errs = append(errs, fmt.Errorf("-dir: %w", err))
	} else if !info.IsDir() {
		errs = append(errs, fmt.Errorf("-dir: %s is not a directory", o.Dir))
	}
	return errs
}
