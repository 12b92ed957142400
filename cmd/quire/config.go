package main

import (
	"fmt"
	"math"
	"time"
)

// Config is everything that can be set. The flag table (flags.go) gives each
// field its flag, default and meaning.
type Config struct {
	// Member
	Name                string
	DataDir             string // empty: NAME.etcd
	WALDir              string // empty: inside DataDir
	SnapshotCount       uint64
	SnapshotCatchUp     uint64
	HeartbeatMillis     uint
	ElectionMillis      uint
	ListenPeerURLs      urlList
	ListenClientURLs    urlList
	ListenClientHTTP    urlList
	ListenMetricsURLs   urlList
	QuotaBackendBytes   int64 // 0: etcd's 2 GiB; negative: none
	MaxTxnOps           uint
	MaxRequestBytes     uint
	MaxStreams          uint32
	EnableGateway       bool
	KeepAliveMinTime    time.Duration
	KeepAliveInterval   time.Duration
	KeepAliveTimeout    time.Duration
	ReusePort           bool
	ReuseAddress        bool
	FeatureGates        string
	PreVote             bool
	StrictReconfigCheck bool
	MaxLearners         int

	// Clustering
	AdvertisePeerURLs   urlList
	AdvertiseClientURLs urlList
	InitialCluster      string
	ClusterState        string
	ClusterToken        string

	// Security
	AuthToken    string
	BcryptCost   uint
	AuthTokenTTL uint // seconds

	// Upkeep
	CompactionMode      string
	CompactionRetention string
	CompactionBatch     int
	CompactionSleep     time.Duration
	WatchProgress       time.Duration
	WarnApply           time.Duration
	WarnUnary           time.Duration
	DowngradeCheck      time.Duration
	DefragThresholdMB   uint
	UnsafeNoFsync       bool
	PageCacheBytes      int64 // quire's own: clean pages kept in memory

	// Monitoring
	Metrics     string
	EnablePprof bool

	// Logging
	Logger        string
	LogLevel      string
	LogFormat     string
	LogOutputs    stringList
	LogRotation   bool
	LogRotateJSON string

	// Where the settings came from.
	ConfigFile  string
	ShowVersion bool
	set         map[string]bool // flags that a source has set
	existing    bool            // the data directory must have been initialised
}

// etcd's limits and names.
const (
	defaultName          = "default"
	defaultToken         = "etcd-cluster"
	defaultPeerURL       = "http://localhost:2380"
	defaultClientURL     = "http://localhost:2379"
	defaultQuotaBytes    = 2 << 30
	maxQuotaBytes        = 8 << 30 // above this etcd warns
	maxElectionMillis    = 50_000
	clusterStateNew      = "new"
	clusterStateExisting = "existing"
	defaultRotation      = `{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}`
)

// newConfig returns the defaults. Flag registration fills the scalar ones.
func newConfig() *Config {
	return &Config{
		ListenPeerURLs:      mustURLs(defaultPeerURL),
		ListenClientURLs:    mustURLs(defaultClientURL),
		AdvertisePeerURLs:   mustURLs(defaultPeerURL),
		AdvertiseClientURLs: mustURLs(defaultClientURL),
		LogOutputs:          stringList{logDefault},
		MaxStreams:          math.MaxUint32,
		set:                 map[string]bool{},
	}
}

// settle fills what depends on other settings, after all sources were read.
func (c *Config) settle() {
	if c.ConfigFile == "" && c.set["listen-client-urls"] && !c.set["advertise-client-urls"] {
		c.AdvertiseClientURLs = nil // Validate refuses this
	}
	if !c.set["initial-cluster"] || c.InitialCluster == "" {
		c.InitialCluster = initialCluster(c.Name, c.AdvertisePeerURLs, c.set["initial-advertise-peer-urls"] || c.Name != defaultName)
	}
	if c.DataDir == "" {
		c.DataDir = c.Name + ".etcd"
	}
	if c.QuotaBackendBytes == 0 {
		c.QuotaBackendBytes = defaultQuotaBytes
	}
	if c.WarnUnary == 0 {
		c.WarnUnary = 300 * time.Millisecond
	}
}

// initialCluster is the cluster of one that stands for an unset
// --initial-cluster.
func initialCluster(name string, peers urlList, derive bool) string {
	if !derive {
		return defaultName + "=" + defaultPeerURL
	}
	s := ""
	for i, u := range peers {
		if i > 0 {
			s += ","
		}
		s += fmt.Sprintf("%s=%s", name, u.String())
	}
	return s
}

func (c *Config) electionTimeout() time.Duration {
	return time.Duration(c.ElectionMillis) * time.Millisecond
}
