package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Validate returns every fault of the settings, each naming its flag. It
// touches nothing.
func (c *Config) Validate() (faults []error) {
	for _, check := range []func() []error{
		c.checkLogging, c.checkURLs, c.checkTLS, c.checkTiming, c.checkCluster, c.checkUpkeep, c.checkMonitoring, c.Features.check,
	} {
		faults = append(faults, check()...)
	}
	return faults
}

func (c *Config) checkLogging() (faults []error) {
	if c.Logger == "capnslog" {
		faults = append(faults, errors.New("--logger=capnslog is removed in v3.5"))
	} else if c.Logger != "zap" {
		faults = append(faults, fmt.Errorf("unknown logger option %q for --logger", c.Logger))
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error", "dpanic", "panic", "fatal"}, c.LogLevel) {
		faults = append(faults, fmt.Errorf("--log-level: unknown level %q", c.LogLevel))
	}
	if c.LogFormat != "json" && c.LogFormat != "console" {
		faults = append(faults, fmt.Errorf("--log-format: unknown log format: %q, known formats: json, console", c.LogFormat))
	}
	if len(c.LogOutputs) > 1 && slices.Contains(c.LogOutputs, logDefault) {
		faults = append(faults, fmt.Errorf("--log-outputs: multi logoutput for %q is not supported yet", logDefault))
	}
	if c.LogRotation {
		if _, err := rotationFile(c.LogOutputs); err != nil {
			faults = append(faults, err)
		}
		if _, err := parseRotation(c.LogRotateJSON); err != nil {
			faults = append(faults, fmt.Errorf("--log-rotation-config-json: %w", err))
		}
	}
	return faults
}

// maxTracingRate is a million requests in a million.
const maxTracingRate = 1_000_000

func (c *Config) checkMonitoring() (faults []error) {
	switch {
	case !c.Tracing: // then etcd looks at nothing of it
	case c.TracingRate < 0:
		faults = append(faults, errors.New("distributed tracing configurition is not valid: (tracing sampling rate must be positive)"))
	case c.TracingRate > maxTracingRate:
		faults = append(faults, fmt.Errorf("distributed tracing configurition is not valid: (tracing sampling rate must be less than %d)", maxTracingRate))
	}
	if c.CompactHashCheck <= 0 {
		faults = append(faults, fmt.Errorf("--compact-hash-check-time must be >0 (set to %v)", c.CompactHashCheck))
	}
	if c.DiscoveryFallback == "proxy" {
		faults = append(faults, errors.New(`v2 proxy is deprecated, and --discovery-fallback can't be configured as "proxy"`))
	}
	return faults
}

func (c *Config) checkURLs() (faults []error) {
	for _, l := range []struct {
		flag string
		urls urlList
	}{
		{"listen-peer-urls", c.ListenPeerURLs}, {"listen-client-urls", c.ListenClientURLs},
		{"listen-client-http-urls", c.ListenClientHTTP}, {"listen-metrics-urls", c.ListenMetricsURLs},
	} {
		for _, u := range l.urls {
			if isUnix(u) {
				continue
			}
			host, _, err := net.SplitHostPort(u.Host)
			if err != nil {
				faults = append(faults, fmt.Errorf("--%s: %w", l.flag, err))
			} else if host != "localhost" && net.ParseIP(host) == nil {
				faults = append(faults, fmt.Errorf("--%s: expected IP in URL for binding (%s)", l.flag, u.String()))
			}
		}
	}
	for _, a := range []struct {
		flag string
		urls urlList
	}{{"initial-advertise-peer-urls", c.AdvertisePeerURLs}, {"advertise-client-urls", c.AdvertiseClientURLs}} {
		for _, u := range a.urls {
			if host, _, err := net.SplitHostPort(u.Host); !isUnix(u) && (err != nil || host == "") {
				faults = append(faults, fmt.Errorf(`--%s %q must be "host:port" (unexpected empty host)`, a.flag, u.String()))
			}
		}
	}
	if len(c.ListenClientURLs) == 0 {
		faults = append(faults, errors.New("--listen-client-urls is empty"))
	}
	if len(c.AdvertisePeerURLs) == 0 {
		faults = append(faults, errors.New("--initial-advertise-peer-urls is empty"))
	}
	if len(c.AdvertiseClientURLs) == 0 {
		faults = append(faults, errors.New("--advertise-client-urls is required when --listen-client-urls is set explicitly"))
	}
	return faults
}

func (c *Config) checkTiming() (faults []error) {
	switch {
	case c.HeartbeatMillis == 0:
		faults = append(faults, fmt.Errorf("--heartbeat-interval must be >0 (set to %dms)", c.HeartbeatMillis))
	case c.ElectionMillis == 0:
		faults = append(faults, fmt.Errorf("--election-timeout must be >0 (set to %dms)", c.ElectionMillis))
	case 5*c.HeartbeatMillis > c.ElectionMillis:
		faults = append(faults, fmt.Errorf("--election-timeout[%vms] should be at least as 5 times as --heartbeat-interval[%vms]", c.ElectionMillis, c.HeartbeatMillis))
	}
	if c.ElectionMillis > maxElectionMillis {
		faults = append(faults, fmt.Errorf("--election-timeout[%vms] is too long, and should be set less than %vms", c.ElectionMillis, maxElectionMillis))
	}
	return faults
}

// checkCluster looks at the list of members. A data directory that has been
// initialised knows its cluster: then, as in etcd, the bootstrap flags are not
// looked at. What needs the network is checked by bootstrap.
func (c *Config) checkCluster() (faults []error) {
	if c.initialised() {
		return nil
	}
	if c.Name == "" {
		faults = append(faults, errors.New("--name is empty"))
	}
	faults = append(faults, c.Discovery.Validate()...)
	if given := c.set["initial-cluster"] && c.InitialCluster != ""; c.discovers() {
		if given || len(c.Discovery.Endpoints) > 0 && c.DiscoverySRV.Domain != "" {
			faults = append(faults, errors.New("multiple discovery or bootstrap flags are set. "+
				`Choose one of "initial-cluster", "discovery-endpoints" or "discovery-srv"`))
		}
		if len(c.Discovery.Endpoints) > 0 && c.ClusterState == clusterStateExisting {
			faults = append(faults, errors.New("discovery URL should not be set when joining existing initial cluster"))
		}
		return faults
	}
	members, err := parseCluster(c.InitialCluster)
	if err != nil {
		return append(faults, fmt.Errorf("--initial-cluster: %w", err))
	}
	if err := c.checkInitialCluster(members); err != nil {
		faults = append(faults, err)
	}
	return faults
}

func (c *Config) checkUpkeep() (faults []error) {
	if _, err := parseRetention(c.CompactionMode, c.CompactionRetention); err != nil {
		faults = append(faults, err)
	}
	if c.MaxRequestBytes == 0 || c.MaxRequestBytes > 1<<30 {
		faults = append(faults, fmt.Errorf("--max-request-bytes %d is not between 1 and %d", c.MaxRequestBytes, 1<<30))
	}
	if c.PageCacheBytes < 1<<20 {
		faults = append(faults, fmt.Errorf("--page-cache-bytes %d is below %d", c.PageCacheBytes, 1<<20))
	}
	if c.MaxTxnOps == 0 {
		faults = append(faults, errors.New("--max-txn-ops must be >0"))
	}
	for _, d := range []struct {
		flag string
		v    time.Duration
	}{
		{"grpc-keepalive-min-time", c.KeepAliveMinTime}, {"grpc-keepalive-interval", c.KeepAliveInterval},
		{"grpc-keepalive-timeout", c.KeepAliveTimeout}, {"compaction-sleep-interval", c.CompactionSleep},
		{"corrupt-check-time", c.CorruptCheck}, {"watch-progress-notify-interval", c.WatchProgress}, {"warning-unary-request-duration", c.WarnUnary},
	} {
		if d.v < 0 {
			faults = append(faults, fmt.Errorf("--%s must not be negative (set to %v)", d.flag, d.v))
		}
	}
	return faults
}

// initialised tells whether the data directory holds anything.
func (c *Config) initialised() bool {
	entries, err := os.ReadDir(c.DataDir)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() != "LOCK" })
}

// parseCluster reads name=url,name=url,... ; a name may come again with a
// further URL.
func parseCluster(s string) (map[string]urlList, error) {
	raw := map[string][]string{}
	for _, pair := range strings.Split(s, ",") {
		name, u, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if !ok || name == "" || u == "" {
			return nil, fmt.Errorf("%q is not name=URL", pair)
		}
		raw[name] = append(raw[name], u)
	}
	members := map[string]urlList{}
	for name, us := range raw {
		list, err := parseURLs(us)
		if err != nil {
			return nil, err
		}
		members[name] = list
	}
	return members, nil
}

// retention is what auto-compaction keeps; both zero: everything.
type retention struct {
	period    time.Duration
	revisions int64
}

func parseRetention(mode, s string) (retention, error) {
	n, err := strconv.Atoi(s)
	switch mode {
	case "revision":
		if err != nil || n < 0 {
			return retention{}, fmt.Errorf("--auto-compaction-retention: %q is not a number of revisions", s)
		}
		return retention{revisions: int64(n)}, nil
	case "periodic":
		if err == nil && n >= 0 {
			return retention{period: time.Duration(n) * time.Hour}, nil
		}
		d, derr := time.ParseDuration(s)
		if derr != nil || d < 0 {
			return retention{}, fmt.Errorf("--auto-compaction-retention: %q is neither hours nor a duration", s)
		}
		return retention{period: d}, nil
	case "":
		return retention{}, errors.New("--auto-compaction-mode: undefined auto-compaction-mode")
	}
	return retention{}, fmt.Errorf("--auto-compaction-mode: unknown auto-compaction-mode %q", mode)
}
