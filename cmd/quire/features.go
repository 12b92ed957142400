package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Feature gates are etcd's switches between implementations of its own. All of
// its names are taken, those that have a meaning here have an effect.

// Stages of a gate.
const (
	alpha = "ALPHA"
	beta  = "BETA"
)

// The gates by name. The first two set all others of their stage that are not
// set by name.
const (
	gateAllAlpha          = "AllAlpha"
	gateAllBeta           = "AllBeta"
	gateLeaseCheckpoint   = "LeaseCheckpoint"
	gateCheckpointPersist = "LeaseCheckpointPersist"
	gateStopOnDefrag      = "StopGRPCServiceOnDefrag"

	gateCompactHashCheck    = "CompactHashCheck"
	gateInitialCorruptCheck = "InitialCorruptCheck"
	gateSetMemberLocalAddr  = "SetMemberLocalAddr"
)

type gateSpec struct {
	stage string
	on    bool // by default
	// works is false for what is so without a gate, or does not exist here.
	works bool
}

var knownGates = map[string]gateSpec{
	gateAllAlpha:                   {stage: alpha, works: true},
	gateAllBeta:                    {stage: beta, works: true},
	gateCompactHashCheck:           {stage: alpha, works: true},
	"FastLeaseKeepAlive":           {stage: beta, on: true},
	gateInitialCorruptCheck:        {stage: alpha, works: true},
	gateLeaseCheckpoint:            {stage: alpha}, // remaining TTLs are always kept
	gateCheckpointPersist:          {stage: alpha},
	"PriorityRequest":              {stage: alpha},
	gateSetMemberLocalAddr:         {stage: alpha, works: true},
	gateStopOnDefrag:               {stage: alpha, works: true},
	"TxnModeWriteWithSharedBuffer": {stage: beta, on: true},
}

// featureGates is a flag value: Name=bool,...
type featureGates struct{ set map[string]bool }

// String implements flag.Value: the gates that were set.
func (g *featureGates) String() string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(g.set)) {
		pairs = append(pairs, fmt.Sprintf("%s=%t", name, g.set[name]))
	}
	return strings.Join(pairs, ",")
}

// Set implements flag.Value; the errors are etcd's.
func (g *featureGates) Set(s string) error {
	named := map[string]bool{}
	for _, pair := range strings.Split(s, ",") {
		if pair == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok {
			return fmt.Errorf("missing bool value for %s", name)
		}
		on, err := strconv.ParseBool(value)
		if err != nil {
			return fmt.Errorf("invalid value of %s=%s, err: %w", name, value, err)
		}
		named[name] = on
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		if _, ok := knownGates[name]; !ok {
			return fmt.Errorf("unrecognized feature gate: %s", name)
		}
	}
	if g.set == nil {
		g.set = map[string]bool{}
	}
	maps.Copy(g.set, named)
	for _, stage := range []struct{ all, stage string }{{gateAllAlpha, alpha}, {gateAllBeta, beta}} {
		if on, ok := named[stage.all]; ok {
			g.setStage(stage.stage, on)
		}
	}
	return nil
}

func (g *featureGates) setStage(stage string, on bool) {
	for name, spec := range knownGates {
		if _, named := g.set[name]; !named && spec.stage == stage {
			g.set[name] = on
		}
	}
}

// Enabled tells whether a gate is open.
func (g *featureGates) Enabled(name string) bool {
	if on, ok := g.set[name]; ok {
		return on
	}
	return knownGates[name].on
}

// idle lists the gates that were set to another value than their default and
// change nothing.
func (g *featureGates) idle() (names []string) {
	for _, name := range slices.Sorted(maps.Keys(g.set)) {
		if spec := knownGates[name]; !spec.works && g.set[name] != spec.on {
			names = append(names, name)
		}
	}
	return names
}

func (g *featureGates) check() []error {
	if g.Enabled(gateCheckpointPersist) && !g.Enabled(gateLeaseCheckpoint) {
		return []error{fmt.Errorf("enabling feature gate LeaseCheckpointPersist requires enabling feature gate LeaseCheckpoint")}
	}
	return nil
}

// gateList is what the help text says of the gates.
func gateList() string {
	var lines []string
	for _, name := range slices.Sorted(maps.Keys(knownGates)) {
		spec := knownGates[name]
		note := ""
		if !spec.works {
			note = ", no effect in this version"
		}
		lines = append(lines, fmt.Sprintf("%s=true|false (%s - default=%t%s)", name, spec.stage, spec.on, note))
	}
	return strings.Join(lines, "\n    ")
}

// register shows the gates under etcd's name.
func (g *featureGates) register(reg prometheus.Registerer) error {
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "etcd_server_feature_enabled", Help: "Whether or not a feature is enabled. 1 is enabled, 0 is not.",
	}, []string{"name", "stage"})
	for name, spec := range knownGates {
		on := 0.0
		if g.Enabled(name) {
			on = 1
		}
		v.WithLabelValues(name, spec.stage).Set(on)
	}
	return reg.Register(v)
}
