package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
)

// effect says what setting a flag does in this version.
type effect int

const (
	works   effect = iota
	none           // accepted so that existing command lines start; changes nothing yet
	refused        // asking for it and not getting it would be dangerous: an error
)

// flagSet is etcd's flags over a Config.
type flagSet struct {
	*flag.FlagSet
	cfg     *Config
	effects map[string]effect
	groups  []flagGroup

	// What start-up has to say about the sources.
	envWarnings []envWarning
	ignored     []string
}

type flagGroup struct {
	title string
	names []string
}

func newFlagSet(cfg *Config) *flagSet {
	f := &flagSet{FlagSet: flag.NewFlagSet("quire", flag.ContinueOnError), cfg: cfg, effects: map[string]effect{}}
	f.SetOutput(io.Discard) // faults are collected and reported together
	f.group("Member", f.addMember)
	f.group("Clustering", f.addClustering)
	f.group("Security", f.addSecurity)
	f.group("Upkeep", f.addUpkeep)
	f.group("Profiling and monitoring", f.addMonitoring)
	f.group("Logging", f.addLogging)
	f.group("Unsafe", f.addUnsafe)
	f.group("Beyond etcd", f.addOwn)
	for _, name := range []string{
		"cluster-active-size", "cluster-remove-delay", "cluster-sync-interval", "config", "force",
		"max-result-buffer", "max-retry-attempts", "peer-heartbeat-interval", "peer-election-timeout",
		"retry-interval", "snapshot", "v", "vv", "test.coverprofile", "test.outputdir",
	} {
		f.Var(ignoredFlag{}, name, "")
		f.effects[name] = none
	}
	return f
}

// group notes which flags add registers, for the help text.
func (f *flagSet) group(title string, add func()) {
	before := map[string]bool{}
	f.VisitAll(func(fl *flag.Flag) { before[fl.Name] = true })
	add()
	g := flagGroup{title: title}
	f.VisitAll(func(fl *flag.Flag) {
		if !before[fl.Name] {
			g.names = append(g.names, fl.Name)
		}
	})
	f.groups = append(f.groups, g)
}

func (f *flagSet) addMember() {
	c := f.cfg
	f.StringVar(&c.Name, "name", defaultName, "name of this member")
	f.StringVar(&c.DataDir, "data-dir", "", "data directory (default NAME.etcd)")
	f.StringVar(&c.WALDir, "wal-dir", "", "directory of the log, if not inside the data directory")
	f.Uint64Var(&c.SnapshotCount, "snapshot-count", 10000, "committed entries after which a checkpoint is written")
	f.Uint64Var(&c.SnapshotCatchUp, "snapshot-catchup-entries", 5000, "entries kept in the log for a slow follower")
	f.UintVar(&c.HeartbeatMillis, "heartbeat-interval", 100, "milliseconds between heartbeats")
	f.UintVar(&c.ElectionMillis, "election-timeout", 1000, "milliseconds without a leader before an election")
	f.Var(&c.ListenPeerURLs, "listen-peer-urls", "URLs to listen on for peers")
	f.Var(&c.ListenClientURLs, "listen-client-urls", "URLs to listen on for clients: gRPC and, unless listen-client-http-urls is set, HTTP")
	f.Var(&c.ListenClientHTTP, "listen-client-http-urls", "URLs to listen on for HTTP clients only")
	f.Int64Var(&c.QuotaBackendBytes, "quota-backend-bytes", 0, "size of the data at which writes are refused (0: 2 GiB, negative: none)")
	f.UintVar(&c.MaxTxnOps, "max-txn-ops", 128, "operations permitted in a transaction")
	f.UintVar(&c.MaxRequestBytes, "max-request-bytes", 3<<19, "bytes permitted in a request")
	f.Var(uint32Value{&c.MaxStreams}, "max-concurrent-streams", "streams that a client may have open on a connection")
	f.DurationVar(&c.KeepAliveMinTime, "grpc-keepalive-min-time", 5*time.Second, "shortest interval at which a client may ping")
	f.DurationVar(&c.KeepAliveInterval, "grpc-keepalive-interval", 2*time.Hour, "silence after which a client is pinged (0: never)")
	f.DurationVar(&c.KeepAliveTimeout, "grpc-keepalive-timeout", 20*time.Second, "time for the answer to that ping (0: for ever)")
	f.BoolVar(&c.ReusePort, "socket-reuse-port", false, "set SO_REUSEPORT on listeners")
	f.BoolVar(&c.ReuseAddress, "socket-reuse-address", false, "set SO_REUSEADDR on listeners")
	f.Var(featureGates{&c.FeatureGates}, "feature-gates", "etcd's feature gates, Name=true|false,...")
	f.effects["feature-gates"] = none
	f.BoolVar(&c.ElectionTickAdvance, "initial-election-tick-advance", true, "wait only one heartbeat for a leader at the start")
	f.nothing("max-snapshots", uint(5), "snapshot files to keep")
	f.nothing("max-wals", uint(5), "log files to keep")
	f.nothing("memory-mlock", false, "lock the data in memory")
	f.nothing("backend-bbolt-freelist-type", "map", "of etcd's storage engine")
	f.nothing("backend-batch-interval", time.Duration(0), "of etcd's storage engine")
	f.nothing("backend-batch-limit", 0, "of etcd's storage engine")
	f.nothing("enable-grpc-gateway", true, "serve the JSON gateway")
	f.DurationVar(&c.RaftReadTimeout, "raft-read-timeout", 5*time.Second, "silence after which a peer connection is given up")
	f.DurationVar(&c.RaftWriteTimeout, "raft-write-timeout", 5*time.Second, "time that a write to a peer may take")
	f.StringVar(&c.ConfigFile, "config-file", "", "YAML file with all settings; other flags and the environment are then ignored")
	f.BoolVar(&c.ShowVersion, "version", false, "print the version and exit")
}

func (f *flagSet) addClustering() {
	c := f.cfg
	f.Var(&c.AdvertisePeerURLs, "initial-advertise-peer-urls", "this member's peer URLs as the others know it")
	f.Var(&c.AdvertiseClientURLs, "advertise-client-urls", "this member's client URLs as clients learn them")
	f.StringVar(&c.InitialCluster, "initial-cluster", defaultName+"="+defaultPeerURL, "members of a new cluster: name=peer URL,...")
	c.ClusterState = clusterStateNew
	f.Var(oneOf{&c.ClusterState, []string{clusterStateNew, clusterStateExisting}}, "initial-cluster-state", "new or existing")
	f.StringVar(&c.ClusterToken, "initial-cluster-token", "etcd-cluster", "tells clusters with the same URLs apart")
	f.BoolVar(&c.StrictReconfigCheck, "strict-reconfig-check", true, "refuse membership changes that would lose the quorum")
	f.BoolVar(&c.PreVote, "pre-vote", true, "ask before an election that could disturb the others")
	f.IntVar(&c.MaxLearners, "max-learners", 1, "learners permitted in the cluster")
	fallback := "exit"
	f.Var(oneOf{&fallback, []string{"exit", "proxy"}}, "discovery-fallback", "what to do when discovery fails")
	f.effects["discovery-fallback"] = none
	f.deny("discovery-token", "", "discovery service")
	f.deny("discovery-endpoints", "", "discovery service")
	f.deny("discovery-srv", "", "DNS domain to bootstrap from")
	f.deny("discovery-srv-name", "", "DNS service name to bootstrap from")
	f.nothing("discovery-dial-timeout", 2*time.Second, "discovery service")
	f.nothing("discovery-request-timeout", 5*time.Second, "discovery service")
	f.nothing("discovery-keepalive-time", 2*time.Second, "discovery service")
	f.nothing("discovery-keepalive-timeout", 6*time.Second, "discovery service")
	f.nothing("discovery-insecure-transport", true, "discovery service")
	f.nothing("discovery-insecure-skip-tls-verify", false, "discovery service")
	for _, name := range []string{"cert", "key", "cacert", "user", "password"} {
		f.nothing("discovery-"+name, "", "discovery service")
	}
	f.nothing("v2-deprecation", "write-only", "of etcd's version 2")
}

func (f *flagSet) addSecurity() {
	for _, name := range []string{
		"cert-file", "key-file", "client-cert-file", "client-key-file", "client-crl-file",
		"client-cert-allowed-hostname", "trusted-ca-file",
		"peer-cert-file", "peer-key-file", "peer-client-cert-file", "peer-client-key-file", "peer-crl-file",
		"peer-cert-allowed-cn", "peer-cert-allowed-hostname", "peer-trusted-ca-file",
	} {
		f.deny(name, "", "TLS")
	}
	for _, name := range []string{"client-cert-auth", "auto-tls", "peer-client-cert-auth", "peer-auto-tls"} {
		f.deny(name, false, "TLS")
	}
	f.nothing("peer-skip-client-san-verification", false, "TLS")
	f.nothing("self-signed-cert-validity", uint(1), "TLS")
	f.nothing("cipher-suites", "", "TLS")
	f.nothing("tls-min-version", "TLS1.2", "TLS")
	f.nothing("tls-max-version", "", "TLS")
	f.nothing("cors", "*", "origins that browsers may come from")
	f.nothing("host-whitelist", "*", "host names that HTTP clients may use")
	f.nothing("auth-token", "simple", "kind of authentication token")
	f.nothing("bcrypt-cost", uint(10), "cost of hashing a password")
	f.nothing("auth-token-ttl", uint(300), "seconds that a simple token lives")
}

func (f *flagSet) addUpkeep() {
	c := f.cfg
	f.StringVar(&c.CompactionMode, "auto-compaction-mode", "periodic", "periodic or revision")
	f.StringVar(&c.CompactionRetention, "auto-compaction-retention", "0", "history to keep: a duration (hours if without unit) or a number of revisions; 0: everything")
	f.IntVar(&c.CompactionBatch, "compaction-batch-limit", 1000, "versions removed in one step of a compaction")
	f.DurationVar(&c.CompactionSleep, "compaction-sleep-interval", 10*time.Millisecond, "pause between the steps of a compaction")
	f.DurationVar(&c.WatchProgress, "watch-progress-notify-interval", 10*time.Minute, "interval of progress notifications")
	f.DurationVar(&c.WarnApply, "warning-apply-duration", 100*time.Millisecond, "time to apply an entry after which a warning is logged")
	f.UintVar(&c.DefragThresholdMB, "bootstrap-defrag-threshold-megabytes", 0, "space to gain for which the start reclaims first")
	f.effects["bootstrap-defrag-threshold-megabytes"] = none
	f.nothing("corrupt-check-time", time.Duration(0), "interval of comparing hashes with peers")
	f.nothing("compact-hash-check-time", time.Minute, "interval of comparing compaction hashes with peers")
	f.nothing("downgrade-check-time", 5*time.Second, "interval of checking the state of a downgrade")
}

func (f *flagSet) addMonitoring() {
	c := f.cfg
	c.Metrics = "basic"
	f.StringVar(&c.Metrics, "metrics", "basic", "basic or extensive, which adds a histogram of every gRPC method")
	f.Var(&c.ListenMetricsURLs, "listen-metrics-urls", "further URLs to listen on for /metrics and /health")
	f.BoolVar(&c.EnablePprof, "enable-pprof", false, "serve /debug/pprof on the client URLs")
	f.nothing("enable-distributed-tracing", false, "OpenTelemetry")
	f.nothing("distributed-tracing-address", "localhost:4317", "OpenTelemetry")
	f.nothing("distributed-tracing-service-name", "etcd", "OpenTelemetry")
	f.nothing("distributed-tracing-instance-id", "", "OpenTelemetry")
	f.nothing("distributed-tracing-sampling-rate", 0, "OpenTelemetry")
}

func (f *flagSet) addLogging() {
	c := f.cfg
	f.StringVar(&c.Logger, "logger", "zap", "zap")
	f.Var(&c.LogOutputs, "log-outputs", "default, stderr, stdout or file names")
	f.StringVar(&c.LogLevel, "log-level", "info", "debug, info, warn, error, panic or fatal")
	f.StringVar(&c.LogFormat, "log-format", "json", "json or console")
	f.BoolVar(&c.LogRotation, "enable-log-rotation", false, "rotate the one file among the log outputs")
	f.StringVar(&c.LogRotateJSON, "log-rotation-config-json", defaultRotation, "when to rotate, as JSON")
	f.DurationVar(&c.WarnUnary, "warning-unary-request-duration", 300*time.Millisecond, "time of a request after which a warning is logged")
}

// addOwn adds what etcd does not have.
func (f *flagSet) addOwn() {
	f.Int64Var(&f.cfg.PageCacheBytes, "page-cache-bytes", 32<<20, "pages of the store kept in memory, in bytes (at least 1 MiB)")
}

func (f *flagSet) addUnsafe() {
	f.BoolVar(&f.cfg.UnsafeNoFsync, "unsafe-no-fsync", false, "do not wait for the disk: a power cut loses acknowledged data")
	f.deny("force-new-cluster", false, "make a cluster of one out of a member's data")
}

// nothing registers a flag that is parsed and has no effect yet.
func (f *flagSet) nothing(name string, def any, usage string) {
	f.effects[name] = none
	f.discard(name, def, usage)
}

// deny registers a flag that is refused when it is set to anything but its
// default.
func (f *flagSet) deny(name string, def any, usage string) {
	f.effects[name] = refused
	f.discard(name, def, usage)
}

func (f *flagSet) discard(name string, def any, usage string) {
	switch v := def.(type) {
	case bool:
		f.Bool(name, v, usage)
	case string:
		f.String(name, v, usage)
	case int:
		f.Int(name, v, usage)
	case uint:
		f.Uint(name, v, usage)
	case time.Duration:
		f.Duration(name, v, usage)
	default:
		panic(fmt.Sprintf("flag %s: no kind for %T", name, def))
	}
}

// errHelp asks for the help text.
var errHelp = flag.ErrHelp

// parseArgs reads the command line and returns every fault, in the words of
// package flag.
func (f *flagSet) parseArgs(args []string) (faults []error) {
	for {
		err := f.Parse(args)
		if errors.Is(err, flag.ErrHelp) {
			return []error{errHelp}
		}
		rest := f.Args()
		if err == nil {
			if len(rest) > 0 {
				faults = append(faults, fmt.Errorf("%q is not a valid flag", rest[0]))
			}
			break
		}
		faults = append(faults, err)
		// Go on behind the fault; a word that follows it was its value.
		for len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
			rest = rest[1:]
		}
		args = rest
	}
	f.Visit(func(fl *flag.Flag) { f.cfg.set[fl.Name] = true })
	return faults
}

// withoutEffect lists the flags that were set and change nothing, and a fault
// for each that is refused.
func (f *flagSet) withoutEffect() (ignored []string, faults []error) {
	f.VisitAll(func(fl *flag.Flag) {
		if !f.cfg.set[fl.Name] || fl.Value.String() == fl.DefValue {
			return
		}
		switch f.effects[fl.Name] {
		case none:
			ignored = append(ignored, fl.Name)
		case refused:
			faults = append(faults, fmt.Errorf("--%s is not supported by this version", fl.Name))
		}
	})
	return ignored, faults
}

// help prints every flag with its default.
func (f *flagSet) help(w io.Writer) {
	fmt.Fprint(w, usage)
	for _, g := range f.groups {
		fmt.Fprintf(w, "\n%s:\n", g.title)
		for _, name := range g.names {
			fl := f.Lookup(name)
			note := ""
			switch f.effects[name] {
			case none:
				note = " (accepted, no effect in this version)"
			case refused:
				note = " (not supported by this version)"
			}
			fmt.Fprintf(w, "  --%s '%s'\n    %s%s\n", name, fl.DefValue, fl.Usage, note)
		}
	}
}

const usage = `Usage:

  quire [flags]                 start a server
  quire --version               show the version
  quire --config-file FILE      take all settings from a YAML file
  quire help                    show this text
  quire dump wal PATH           print a log directory, offline
  quire dump pages PATH         print a page store's segments, offline
  quire dump manifest PATH      print a page store's checkpoints, offline
  quire check DATA_DIR          verify every checksum and invariant, offline

Every flag can be set in the environment: --listen-client-urls is
ETCD_LISTEN_CLIENT_URLS. etcd's "gateway" and "grpc-proxy" subcommands are not
part of quire; etcd's own can stand in front of it.
`

// secretFlags are never shown.
var secretFlags = []string{"discovery-user", "discovery-password"}

// settings are all flags with their values, for the log.
func (f *flagSet) settings() (fields []zap.Field) {
	f.VisitAll(func(fl *flag.Flag) {
		if _, past := fl.Value.(ignoredFlag); past || slices.Contains(secretFlags, fl.Name) {
			return
		}
		fields = append(fields, zap.String(fl.Name, fl.Value.String()))
	})
	return fields
}
