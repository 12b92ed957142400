package rpc

// Method is one row of the method table.
type Method struct {
	Service string // full name, e.g. "etcdserverpb.KV"
	Name    string
	// Unary serves a unary method; nil for a streaming one.
	Unary Handler
	// Open starts a session of a streaming method; nil for a unary one.
	Open func(*Stream) Session
	// ClientStreams: the client sends more than one message.
	ClientStreams bool
	// Duplex: messages come out while none go in, so the transport pulls on
	// every wake and not only after a Recv.
	Duplex bool
	// Blocking: the handler may wait; a transport that serves calls on a
	// connection's goroutine gives it one of its own.
	Blocking bool
	// Auth is what a client needs while authentication is enabled. It has to be
	// set: New refuses a method that leaves it open.
	Auth AuthNeed
	// Learner: a learner answers it. LearnerRead asks the handler itself,
	// because it depends on the request.
	Learner bool

	stats methodStats
}

// AuthNeed is what a client has to be to call a method.
type AuthNeed byte

const (
	authUnset AuthNeed = iota
	// AuthAnybody: no question asked.
	AuthAnybody
	// AuthHandler: the handler checks, because it depends on the request.
	AuthHandler
	// AuthUser: somebody, whoever it is.
	AuthUser
	// AuthRoot: somebody with the role root.
	AuthRoot
)

// FullName returns the HTTP/2 path.
func (m *Method) FullName() string { return "/" + m.Service + "/" + m.Name }

// streaming tells whether m has sessions.
func (m *Method) streaming() bool { return m.Open != nil }

// kind returns the grpc_type label of etcd's metrics.
func (m *Method) kind() string {
	switch {
	case m.ClientStreams:
		return "bidi_stream"
	case m.streaming():
		return "server_stream"
	}
	return "unary"
}
