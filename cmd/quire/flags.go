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
	"golang.org/x/crypto/bcrypt"
)

// effect says what setting a flag does in this version.
type effect int

const (
	works effect = iota
	none         // accepted so that existing command lines start; changes nothing yet
)

// flagSet is etcd's flags over a Config.
type flagSet struct {
	*flag.FlagSet
	cfg     *Config
	effects map[string]effect
	groups  []flagGroup

	fileOnly map[string]flag.Value // settings that only a file has, by flag-like names

	// What start-up has to say about the sources.
	env     []envUse
	ignored []string
}

type flagGroup struct {
	title string
	names []string
}

func newFlagSet(cfg *Config) *flagSet {
	f := &flagSet{FlagSet: flag.NewFlagSet("quire", flag.ContinueOnError), cfg: cfg, effects: map[string]effect{}, fileOnly: map[string]flag.Value{}}
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
	f.Uint64Var(&c.SnapshotCount, "snapshot-count", defaultSnapshotCount, "committed entries after which a checkpoint is written")
	f.Uint64Var(&c.SnapshotCatchUp, "snapshot-catchup-entries", defaultSnapshotCatchUp, "entries kept in the log for a slow follower")
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
	f.DurationVar(&c.KeepAliveInterval, "grpc-keepalive-interval", 2*time.Hour, "silence after which a client is pinged (0: 2h)")
	f.DurationVar(&c.KeepAliveTimeout, "grpc-keepalive-timeout", 20*time.Second, "time for the answer to that ping (0: 20s)")
	f.BoolVar(&c.ReusePort, "socket-reuse-port", false, "set SO_REUSEPORT on listeners")
	f.BoolVar(&c.ReuseAddress, "socket-reuse-address", false, "set SO_REUSEADDR on listeners")
	f.Var(&c.Features, "feature-gates", "etcd's feature gates, Name=true|false,...; they are\n    "+gateList())
	f.BoolVar(&c.ElectionTickAdvance, "initial-election-tick-advance", true, "wait only one heartbeat for a leader at the start")
	f.nothing("max-snapshots", uint(5), "snapshot files to keep")
	f.nothing("max-wals", uint(5), "log files to keep")
	f.BoolVar(&c.LockMemory, "memory-mlock", false, "keep the process's memory from being swapped out")
	f.nothing("backend-bbolt-freelist-type", "map", "of etcd's storage engine")
	f.nothing("backend-batch-interval", time.Duration(0), "of etcd's storage engine")
	f.nothing("backend-batch-limit", 0, "of etcd's storage engine")
	f.BoolVar(&c.EnableGateway, "enable-grpc-gateway", true, "serve the JSON API (/v3/kv/put and so on) beside gRPC")
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
	f.StringVar(&c.ClusterToken, "initial-cluster-token", defaultToken, "tells clusters with the same URLs apart")
	f.BoolVar(&c.StrictReconfigCheck, "strict-reconfig-check", true, "refuse membership changes that would lose the quorum")
	f.BoolVar(&c.PreVote, "pre-vote", true, "ask before an election that could disturb the others")
	f.IntVar(&c.MaxLearners, "max-learners", 1, "learners permitted in the cluster")
	c.DiscoveryFallback = "exit"
	f.Var(oneOf{&c.DiscoveryFallback, []string{"exit", "proxy"}}, "discovery-fallback", "what to do when discovery fails: exit")
	f.effects["discovery-fallback"] = none
	f.addDiscovery()
	f.Var(&someOf{words: []string{"write-only", "write-only-skip-check", "write-only-drop-data", "gone"}}, "v2-deprecation", "of etcd's version 2")
	f.effects["v2-deprecation"] = none
}

func (f *flagSet) addDiscovery() {
	c := f.cfg
	d := &c.Discovery
	f.StringVar(&d.Token, "discovery-token", "", "token of the new cluster at the discovery service")
	f.Var((*wordList)(&d.Endpoints), "discovery-endpoints", "endpoints of the etcd cluster that is the discovery service")
	f.DurationVar(&d.DialTimeout, "discovery-dial-timeout", 2*time.Second, "discovery service: time to connect")
	f.DurationVar(&d.RequestTimeout, "discovery-request-timeout", 5*time.Second, "discovery service: time for an answer")
	f.DurationVar(&d.KeepAliveTime, "discovery-keepalive-time", 2*time.Second, "discovery service: silence after which it is pinged")
	f.DurationVar(&d.KeepAliveTimeout, "discovery-keepalive-timeout", 6*time.Second, "discovery service: time for the answer to that ping")
	f.BoolVar(&d.InsecureTransport, "discovery-insecure-transport", true, "discovery service: without TLS, unless an endpoint begins with https")
	f.BoolVar(&d.InsecureSkipVerify, "discovery-insecure-skip-tls-verify", false, "discovery service: accept any certificate")
	f.StringVar(&d.Cert, "discovery-cert", "", "discovery service: client certificate")
	f.StringVar(&d.Key, "discovery-key", "", "discovery service: its key")
	f.StringVar(&d.CACert, "discovery-cacert", "", "discovery service: authorities that its certificates come from")
	f.StringVar(&d.User, "discovery-user", "", "discovery service: NAME or NAME:PASSWORD")
	f.StringVar(&d.Password, "discovery-password", "", "discovery service: the user's password")
	f.StringVar(&c.DiscoverySRV.Domain, "discovery-srv", "", "DNS domain whose SRV records name the members of a new cluster")
	f.StringVar(&c.DiscoverySRV.Suffix, "discovery-srv-name", "", "suffix of the services etcd-server and etcd-server-ssl in that domain")
}

func (f *flagSet) addSecurity() {
	c := f.cfg
	f.addTLS("", &c.ClientTLS, "clients")
	f.Var((*wordList)(&c.ClientTLS.AllowedHostnames), "client-cert-allowed-hostname", "host names of which a client's certificate must have one")
	f.StringVar(&c.ClientTLS.CRLFile, "client-crl-file", "", "list of revoked client certificates, DER or PEM")
	f.addTLS("peer-", &c.PeerTLS, "peers")
	f.StringVar(&c.PeerTLS.CRLFile, "peer-crl-file", "", "list of revoked peer certificates, DER or PEM")
	f.Var((*wordList)(&c.PeerTLS.AllowedCNs), "peer-cert-allowed-cn", "common names of which a peer's certificate must have one")
	f.Var((*wordList)(&c.PeerTLS.AllowedHostnames), "peer-cert-allowed-hostname", "host names of which a peer's certificate must have one")
	f.BoolVar(&c.PeerTLS.SkipClientSANVerify, "peer-skip-client-san-verification", false, "accept a peer's certificate that does not name the address it comes from")
	f.UintVar(&c.SelfSignedValidity, "self-signed-cert-validity", 1, "years for which auto-tls and peer-auto-tls make certificates")
	f.fileOnly["client-cert-allowed-cn"] = (*wordList)(&c.ClientTLS.AllowedCNs)
	f.fileOnly["client-skip-client-san-verification"] = (*boolValue)(&c.ClientTLS.SkipClientSANVerify)
	f.Var(&c.CipherSuites, "cipher-suites", "suites permitted with TLS 1.2, by their Go names (empty: Go's choice)")
	f.StringVar(&c.TLSMinVersion, "tls-min-version", "TLS1.2", "oldest TLS version accepted: TLS1.2 or TLS1.3")
	f.StringVar(&c.TLSMaxVersion, "tls-max-version", "", "newest TLS version accepted: TLS1.2 or TLS1.3 (empty: Go's newest)")
	f.Var(&c.CORS, "cors", "origins whose pages may use the HTTP endpoints (* or empty: all)")
	f.Var(&c.HostWhitelist, "host-whitelist", "host names by which HTTP clients without TLS may call this server (* or empty: all)")
	f.StringVar(&c.AuthToken, "auth-token", "simple", "kind of authentication token: simple, or jwt,sign-method=METHOD,priv-key=FILE,pub-key=FILE,ttl=DURATION")
	f.UintVar(&c.BcryptCost, "bcrypt-cost", uint(bcrypt.DefaultCost), "cost of hashing a password, 4 to 31")
	f.UintVar(&c.AuthTokenTTL, "auth-token-ttl", 300, "seconds that a simple token lives without being used")
}

// addTLS registers what clients and peers have alike.
func (f *flagSet) addTLS(prefix string, s *Security, whom string) {
	f.StringVar(&s.CertFile, prefix+"cert-file", "", "certificate shown to "+whom)
	f.StringVar(&s.KeyFile, prefix+"key-file", "", "its key")
	f.StringVar(&s.ClientCertFile, prefix+"client-cert-file", "", "certificate shown when dialing "+whom+", if not the same")
	f.StringVar(&s.ClientKeyFile, prefix+"client-key-file", "", "its key")
	f.BoolVar(&s.ClientCertAuth, prefix+"client-cert-auth", false, "demand a certificate of "+whom)
	f.StringVar(&s.TrustedCAFile, prefix+"trusted-ca-file", "", "authorities that sign the certificates of "+whom+", which are then demanded")
	f.BoolVar(&s.AutoTLS, prefix+"auto-tls", false, "make a certificate for TLS with "+whom)
}

func (f *flagSet) addUpkeep() {
	c := f.cfg
	f.StringVar(&c.CompactionMode, "auto-compaction-mode", "periodic", "periodic or revision")
	f.StringVar(&c.CompactionRetention, "auto-compaction-retention", "0", "history to keep: a duration (hours if without unit) or a number of revisions; 0: everything")
	f.IntVar(&c.CompactionBatch, "compaction-batch-limit", 1000, "versions removed in one step of a compaction")
	f.DurationVar(&c.CompactionSleep, "compaction-sleep-interval", 10*time.Millisecond, "pause between the steps of a compaction")
	f.DurationVar(&c.WatchProgress, "watch-progress-notify-interval", 10*time.Minute, "interval of progress notifications")
	f.DurationVar(&c.WarnApply, "warning-apply-duration", 100*time.Millisecond, "time to apply an entry after which a warning is logged")
	f.UintVar(&c.DefragThresholdMB, "bootstrap-defrag-threshold-megabytes", 0, "megabytes to gain for which the start defragments first (0: never)")
	f.DurationVar(&c.CorruptCheck, "corrupt-check-time", 0, "interval of comparing hashes of all data with peers; 0: never")
	f.DurationVar(&c.CompactHashCheck, "compact-hash-check-time", time.Minute, "interval of comparing compaction hashes with peers, with the gate CompactHashCheck")
	f.DurationVar(&c.DowngradeCheck, "downgrade-check-time", 5*time.Second, "interval of checking the state of a downgrade; 0: never")
}

func (f *flagSet) addMonitoring() {
	c := f.cfg
	c.Metrics = "basic"
	f.StringVar(&c.Metrics, "metrics", "basic", "basic or extensive, which adds a histogram of every gRPC method")
	f.Var(&c.ListenMetricsURLs, "listen-metrics-urls", "further URLs to listen on for /metrics and /health")
	f.BoolVar(&c.EnablePprof, "enable-pprof", false, "serve /debug/pprof on the client URLs")
	f.BoolVar(&c.Tracing, "enable-distributed-tracing", false, "send OpenTelemetry traces of requests")
	f.StringVar(&c.TracingAddress, "distributed-tracing-address", "localhost:4317", "OTLP collector, by gRPC without TLS")
	f.StringVar(&c.TracingService, "distributed-tracing-service-name", "etcd", "service.name of the traces")
	f.StringVar(&c.TracingInstance, "distributed-tracing-instance-id", "", "service.instance.id of the traces, unique to this server")
	f.IntVar(&c.TracingRate, "distributed-tracing-sampling-rate", 0, "requests traced in a million that nobody else decided about")
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
	f.Int64Var(&f.cfg.SnapshotBytesPerSecond, "snapshot-bytes-per-second", 0, "bytes of snapshots sent to peers per second (0: as fast as it goes)")
	f.Int64Var(&f.cfg.PageCacheBytes, "page-cache-bytes", 32<<20, "pages of the store kept in memory, in bytes (at least 1 MiB)")
}

func (f *flagSet) addUnsafe() {
	f.BoolVar(&f.cfg.UnsafeNoFsync, "unsafe-no-fsync", false, "do not wait for the disk: a power cut loses acknowledged data")
	f.BoolVar(&f.cfg.ForceNewCluster, "force-new-cluster", false, "make a cluster of one out of a member's data, whatever the other members are")
}

// nothing registers a flag that is parsed and has no effect yet.
func (f *flagSet) nothing(name string, def any, usage string) {
	f.effects[name] = none
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

// flagError is a fault that package flag finds.
type flagError struct{ error }

func (e *flagError) Unwrap() error { return e.error }

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
		faults = append(faults, &flagError{err})
		// Go on behind the fault; a word that follows it was its value.
		for len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
			rest = rest[1:]
		}
		args = rest
	}
	f.Visit(func(fl *flag.Flag) { f.cfg.set[fl.Name] = true })
	return faults
}

// withoutEffect lists the flags that were set and change nothing.
func (f *flagSet) withoutEffect() (ignored []string) {
	f.VisitAll(func(fl *flag.Flag) {
		if !f.cfg.set[fl.Name] || fl.Value.String() == fl.DefValue {
			return
		}
		if f.effects[fl.Name] == none {
			ignored = append(ignored, fl.Name)
		}
	})
	for _, name := range f.cfg.Features.idle() {
		ignored = append(ignored, "feature-gates "+name)
	}
	return ignored
}

// secretFlags are never shown.
var secretFlags = []string{"discovery-user", "discovery-password"}

const masked = "***"

// maskArgs returns a command line without the values of secret flags.
func maskArgs(args []string) []string {
	shown := slices.Clone(args)
	for i, arg := range shown {
		name, _, ok := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || !slices.Contains(secretFlags, name) {
			continue
		}
		switch {
		case ok:
			shown[i] = "--" + name + "=" + masked
		case i+1 < len(shown):
			shown[i+1] = masked
		}
	}
	return shown
}

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
