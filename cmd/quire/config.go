package main

import (
	"fmt"
	"math"
	"net"
	"time"

	"quire/cmd/quire/discovery"
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
	Features            featureGates
	LockMemory          bool
	PreVote             bool
	StrictReconfigCheck bool
	MaxLearners         int
	ElectionTickAdvance bool
	// SnapshotBytesPerSecond is quire's own: what leaves of snapshots for peers.
	SnapshotBytesPerSecond int64
	RaftReadTimeout        time.Duration
	RaftWriteTimeout       time.Duration

	// Clustering
	AdvertisePeerURLs   urlList
	AdvertiseClientURLs urlList
	InitialCluster      string
	Discovery           discovery.Config
	DiscoverySRV        discovery.SRV
	ClusterState        string
	ClusterToken        string
	ForceNewCluster     bool
	DiscoveryFallback   string

	// Security
	ClientTLS, PeerTLS Security
	SelfSignedValidity uint // years
	CipherSuites       wordList
	TLSMinVersion      string
	TLSMaxVersion      string
	CORS               originList
	HostWhitelist      stringList
	AuthToken          string
	BcryptCost         uint
	AuthTokenTTL       uint // seconds

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
	CorruptCheck        time.Duration // 0: never
	CompactHashCheck    time.Duration
	UnsafeNoFsync       bool
	PageCacheBytes      int64 // quire's own: clean pages kept in memory

	// Monitoring
	Metrics         string
	EnablePprof     bool
	Tracing         bool
	TracingAddress  string
	TracingService  string
	TracingInstance string
	TracingRate     int // in a million

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
	defaultName            = "default"
	defaultToken           = "etcd-cluster"
	defaultPeerURL         = "http://localhost:2380"
	defaultClientURL       = "http://localhost:2379"
	defaultQuotaBytes      = 2 << 30
	defaultSnapshotCount   = 10_000
	defaultSnapshotCatchUp = 5000
	maxQuotaBytes          = 8 << 30 // above this etcd warns
	maxElectionMillis      = 50_000
	// above this etcd warns
	recommendedRequestBytes = 10 << 20
	clusterStateNew         = "new"
	clusterStateExisting    = "existing"
	defaultRotation         = `{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}`
)

// newConfig returns the defaults. Flag registration fills the scalar ones.
func newConfig() *Config {
	return &Config{
		ListenPeerURLs:      mustURLs(defaultPeerURL),
		ListenClientURLs:    mustURLs(defaultClientURL),
		AdvertisePeerURLs:   mustURLs(defaultPeerURL),
		AdvertiseClientURLs: mustURLs(defaultClientURL),
		LogOutputs:          stringList{logDefault},
		CORS:                originList{anyone},
		HostWhitelist:       stringList{anyone},
		MaxStreams:          math.MaxUint32,
		set:                 map[string]bool{},
	}
}

// settle fills what depends on other settings, after all sources were read.
func (c *Config) settle() {
	if c.ConfigFile == "" && c.set["listen-client-urls"] && !c.set["advertise-client-urls"] {
		c.AdvertiseClientURLs = nil // Validate refuses this
	}
	found := c.advertiseOwnHost()
	if c.discovers() && !c.set["initial-cluster"] {
		c.InitialCluster = "" // whom the discovery names
	} else if !c.set["initial-cluster"] || c.InitialCluster == "" {
		c.InitialCluster = initialCluster(c.Name, c.AdvertisePeerURLs, found || c.set["initial-advertise-peer-urls"] || c.Name != defaultName)
	}
	setDefault(&c.SnapshotCount, defaultSnapshotCount)
	setDefault(&c.SnapshotCatchUp, defaultSnapshotCatchUp)
	if c.DataDir == "" {
		c.DataDir = c.Name + ".etcd"
	}
	setDefault(&c.QuotaBackendBytes, defaultQuotaBytes)
	c.settleTLS()
	setDefault(&c.WarnUnary, 300*time.Millisecond)
}

// discovers tells whether the members of a new cluster are found by discovery.
func (c *Config) discovers() bool {
	return len(c.Discovery.Endpoints) > 0 || c.DiscoverySRV.Domain != ""
}

// setDefault gives a setting for which zero means nothing its default.
func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// advertiseOwnHost puts this machine's address into advertised URLs that were left
// at their default while the server listens everywhere: localhost would lead
// others to themselves. It reports whether the peer URL has changed.
func (c *Config) advertiseOwnHost() (peerChanged bool) {
	own := func(listen, advertise urlList, def string) (urlList, bool) {
		if len(listen) == 0 || listen[0].Hostname() != "0.0.0.0" || advertise.String() != def {
			return advertise, false
		}
		host := ownHost()
		if host == "" {
			return advertise, false
		}
		return urlList{{Scheme: advertise[0].Scheme, Host: net.JoinHostPort(host, listen[0].Port())}}, true
	}
	c.AdvertisePeerURLs, peerChanged = own(c.ListenPeerURLs, c.AdvertisePeerURLs, defaultPeerURL)
	c.AdvertiseClientURLs, _ = own(c.ListenClientURLs, c.AdvertiseClientURLs, defaultClientURL)
	return peerChanged
}

// ownHost is the address from which this machine reaches others; nothing is sent
// to find it out. It is empty on a machine without a route.
func ownHost() string {
	conn, err := net.Dial("udp4", "192.0.2.1:9") // an address for documentation
	if err != nil {
		return ""
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String()
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
