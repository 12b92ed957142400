package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/stats"

	pb "quire/api/etcdserverpb"
	"quire/engine/auth"
	"quire/rpc/token"
	"quire/watchfanout"
)

// Config is what a Server is built from. Validate names every fault.
type Config struct {
	ClusterID, MemberID uint64
	// Version is what Status.version and /version say: a semver of the etcd
	// release whose API this is. Kubernetes switches features by it.
	Version string

	// MaxRequestBytes bounds one request; 0 is etcd's 1.5 MiB.
	MaxRequestBytes int
	// MaxTxnOps bounds the operations of a transaction; 0 is etcd's 128.
	MaxTxnOps int
	// MaxConcurrentStreams bounds a connection's streams; 0 is no bound.
	MaxConcurrentStreams uint32
	// ElectionTimeout is raft's; 0 is one second. The request timeout is five
	// seconds plus twice this, and a stream that requires a leader ends after
	// three of them without one.
	ElectionTimeout time.Duration
	// SlowRequest is what a unary call may take before a warning with its
	// content is logged; 0 is etcd's 300 ms.
	SlowRequest time.Duration
	// KeepAlive is grpc's keepalive policy towards clients.
	KeepAlive KeepAlive
	// ExtensiveMetrics adds a histogram of handling times per method.
	ExtensiveMetrics bool
	// Pprof serves /debug/pprof, Traces /debug/requests and /debug/events.
	Pprof, Traces bool
	// LogLevel, if not nil, serves /debug/loglevel.
	LogLevel http.Handler
	// Tracer, if not nil, makes a span of each request, GRPCStats those of the calls
	// around them.
	Tracer    trace.Tracer
	GRPCStats stats.Handler
	// StopServingOnDefrag makes the health service say NOT_SERVING while the store
	// is being defragmented.
	StopServingOnDefrag bool
	// Vars are shown by /debug/vars beside what Go publishes, as JSON.
	Vars map[string]func() any
	// Gateway serves the JSON API under /v3/.
	Gateway bool

	Logger *zap.Logger
	Clock  Clock
	// ClientCertAuth makes the common name of a verified client certificate the
	// user of requests without a token.
	ClientCertAuth bool
	// BcryptCost of new passwords, 4 to 31; others are 10.
	BcryptCost int
	// Registry receives this package's metrics and is what /metrics shows; nil
	// makes one.
	Registry *prometheus.Registry

	Raft       Proposer
	RaftStatus func() RaftStatus
	KV         KV
	Leases     Leases
	Space      Space
	Upkeep     Upkeep
	// Auth is the applied store of users, Tokens what says who a client is.
	Auth   *auth.Store
	Tokens token.Provider
	Rights Rights
	// Members lists the applied membership.
	Members func() []*pb.Member
	// OpenRange starts a cursor; chunkBytes is what a chunk should not much exceed.
	OpenRange func(req *pb.RangeRequest, chunkBytes int) RangeCursor
	// OpenWatch opens a client's watch cursors.
	OpenWatch func(watchfanout.StreamOptions) WatchStream
	// OpenSnapshot writes the applied state as an etcd database. It may take long.
	OpenSnapshot func(ctx context.Context) (SnapshotFile, error)
	// SnapshotStall is how long a client may take for one chunk of a snapshot
	// before it loses the file; 0: 5 min.
	SnapshotStall time.Duration
	// LogStall tells whether the log's disk does not answer; nil: it cannot be told.
	LogStall func() error
	// MoveLeader transfers leadership and returns when it has moved.
	MoveLeader func(ctx context.Context, to uint64) error
	// Membership changes the membership and the cluster's version.
	Membership Membership
}

// KeepAlive is grpc's keepalive policy.
type KeepAlive struct {
	// MinTime is how often a client may ping; a faster one is disconnected. 0: 5 s.
	MinTime time.Duration
	// Interval is when a silent connection is pinged; 0: 2 h.
	Interval time.Duration
	// Timeout is how long that ping may stay unanswered; 0: 20 s.
	Timeout time.Duration
}

// etcd's defaults and its allowance for framing beyond MaxRequestBytes.
const (
	DefaultMaxRequestBytes = 3 << 19
	DefaultMaxTxnOps       = 128
	overheadBytes          = 512 << 10
)

func (c *Config) setDefaults() {
	setDefault(&c.MaxRequestBytes, DefaultMaxRequestBytes)
	setDefault(&c.MaxTxnOps, DefaultMaxTxnOps)
	setDefault(&c.ElectionTimeout, time.Second)
	setDefault(&c.SlowRequest, 300*time.Millisecond)
	setDefault(&c.SnapshotStall, defaultSnapshotStall)
	if c.BcryptCost < bcrypt.MinCost || c.BcryptCost > bcrypt.MaxCost {
		c.BcryptCost = bcrypt.DefaultCost
	}
	setDefault(&c.KeepAlive.MinTime, 5*time.Second)
	setDefault(&c.KeepAlive.Interval, 2*time.Hour)
	setDefault(&c.KeepAlive.Timeout, 20*time.Second)
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Validate reports every part that is missing.
func (c *Config) Validate() error {
	var errs []error
	for _, part := range []struct {
		name    string
		missing bool
	}{
		{"Raft", c.Raft == nil}, {"RaftStatus", c.RaftStatus == nil}, {"KV", c.KV == nil},
		{"Leases", c.Leases == nil}, {"Space", c.Space == nil}, {"Upkeep", c.Upkeep == nil},
		{"Auth", c.Auth == nil}, {"Tokens", c.Tokens == nil}, {"Rights", c.Rights == nil},
		{"Members", c.Members == nil}, {"OpenRange", c.OpenRange == nil},
		{"OpenWatch", c.OpenWatch == nil}, {"MoveLeader", c.MoveLeader == nil},
		{"OpenSnapshot", c.OpenSnapshot == nil}, {"Membership", c.Membership == nil},
		{"Version", c.Version == ""}, {"MemberID", c.MemberID == 0}, {"ClusterID", c.ClusterID == 0},
	} {
		if part.missing {
			errs = append(errs, fmt.Errorf("rpc: Config.%s is not set", part.name))
		}
	}
	if c.MaxRequestBytes < 0 || c.MaxTxnOps < 0 {
		errs = append(errs, errors.New("rpc: Config has a negative limit"))
	}
	return errors.Join(errs...)
}

// RequestTimeout bounds every unary call, as in etcd: time to queue, compute
// and write, and two elections.
func (c *Config) RequestTimeout() time.Duration {
	return 5*time.Second + 2*c.ElectionTimeout
}

// Server is the API over its parts. It owns the goroutines of the watchdog, of
// the leader monitor and of the password workers, and grpc-go's server; the
// parts belong to the caller.
type Server struct {
	cfg       Config
	header    header
	dog       *watchdog
	methods   []*Method
	byName    map[string]*Method
	net       netStats
	proposals proposalStats
	reads     readStats
	sending   sendTimes
	hashing   hashTimes
	http      httpStats
	probes    []*probe
	// defragmenting is how many calls of Defragment run.
	defragmenting atomic.Int32
	promoteFails  tallies // by text
	leader        *leaderMonitor
	passwords     *passwords
	grpc          *grpc.Server
	grpcHTTP      *grpc.Server // the same for Multiplex: it cannot be stopped in the same way
	loop          *loopback    // nil without the gateway
	json          http.Handler // likewise
	health        *healthService
	calls         sync.Pool // of *syncCall
	slow          slowLog
}

// New builds a server. It serves nothing before ServeGRPC.
func New(cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	s := &Server{
		cfg:    cfg,
		header: newHeader(cfg.ClusterID, cfg.MemberID, func() uint64 { return cfg.RaftStatus().Term }),
		dog:    newWatchdog(cfg.RequestTimeout(), cfg.Clock.now),
		slow:   newSlowLog(cfg.Logger, cfg.SlowRequest),
	}
	for _, service := range [][]*Method{
		s.kvMethods(), s.watchMethods(), s.leaseMethods(),
		s.clusterMethods(), s.maintenanceMethods(), s.authMethods(),
		s.lockMethods(), s.electionMethods(),
	} {
		s.methods = append(s.methods, service...)
	}
	s.byName = make(map[string]*Method, len(s.methods))
	for _, m := range s.methods {
		s.byName[m.FullName()] = m
	}
	s.byName[rangeFullName].stats.fine = new([2]fineHistogram)
	s.probes = s.makeProbes()
	if err := s.checkMethods(); err != nil {
		return nil, err
	}
	s.leader = newLeaderMonitor(cfg.RaftStatus, cfg.ElectionTimeout)
	s.health = newHealthService(cfg.Logger)
	s.grpc, s.grpcHTTP = newGRPCServer(s, grpcWorkers), newGRPCServer(s, 0)
	s.passwords = newPasswords(cfg.BcryptCost)
	if err := s.registerMetrics(); err != nil {
		return nil, err
	}
	if err := s.openGateway(); err != nil {
		return nil, err
	}
	go s.dog.run()
	go s.leader.run()
	return s, nil
}

// checkMethods refuses a method that does not say what its clients have to be: it
// would be open to everybody.
func (s *Server) checkMethods() error {
	for _, m := range s.methods {
		if m.Auth == authUnset {
			return fmt.Errorf("rpc: method %s does not say what rights it needs", m.FullName())
		}
	}
	return nil
}

// Close ends what is in flight and stops the server's goroutines: streams get
// "server stopped", unary calls may finish until ctx ends.
func (s *Server) Close(ctx context.Context) {
	s.health.stop()
	s.leader.failAll(errStopped)
	s.stopGRPC(ctx)
	s.leader.close()
	s.passwords.close()
	s.dog.close()
}

// HeaderBody returns a function that appends the content of a ResponseHeader
// for the watch hub, which frames it itself.
func HeaderBody(clusterID, memberID uint64, term func() uint64) func(dst []byte, rev int64) []byte {
	h := newHeader(clusterID, memberID, term)
	return h.appendBody
}

// checkLearnerRead refuses what a learner does not answer: everything but a
// stale read and Status.
func (s *Server) checkLearnerRead(stale bool) error {
	if !stale && s.cfg.RaftStatus().IsLearner {
		return errNotSupportedLearner
	}
	return nil
}
