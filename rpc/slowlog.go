package rpc

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	pb "quire/api/etcdserverpb"
)

// slowLog writes the line "request stats" for unary calls that took long (a
// warning) or, at level debug, for all of them. Values never appear in it.
type slowLog struct {
	logger *zap.Logger
	limit  time.Duration
}

func newSlowLog(logger *zap.Logger, limit time.Duration) slowLog {
	return slowLog{logger: logger, limit: limit}
}

// debug tells whether every call is logged; the level may change at any time.
func (l *slowLog) debug() bool { return l.logger.Core().Enabled(zapcore.DebugLevel) }

// ended is called by the transport while the call's request is still valid.
func (l *slowLog) ended(c *Call, took time.Duration) {
	debug := l.debug()
	if took <= l.limit && !debug {
		return
	}
	level := zapcore.WarnLevel
	if debug {
		level = zapcore.DebugLevel
	}
	entry := l.logger.Check(level, "request stats")
	if entry == nil {
		return
	}
	remote := "No remote client info."
	if p, ok := peer.FromContext(c.Ctx); ok {
		remote = p.Addr.String()
	}
	resp, _ := c.Response()
	st := describe(c, resp)
	entry.Write(
		zap.Time("start time", c.start),
		zap.Duration("time spent", took),
		zap.String("remote", remote),
		zap.String("response type", c.Method.FullName()),
		zap.Int64("request count", st.reqCount),
		zap.Int("request size", st.reqSize),
		zap.Int64("response count", st.respCount),
		zap.Int("response size", st.respSize),
		zap.String("request content", st.content),
	)
}

type requestStats struct {
	reqCount, respCount int64
	reqSize, respSize   int
	content             string
}

// describe follows etcd: keys are shown, values are replaced by their sizes,
// and only the KV methods are described at all.
func describe(c *Call, resp []byte) requestStats {
	st := requestStats{reqSize: len(c.Req), respSize: len(resp)}
	switch c.Method.FullName() {
	case "/etcdserverpb.KV/Range":
		var q pb.RangeRequest
		var r pb.RangeResponse
		if q.UnmarshalVT(c.Req) == nil && r.UnmarshalVT(resp) == nil {
			st.respCount = r.Count
			st.content = text(&q)
		}
	case "/etcdserverpb.KV/Put":
		var q pb.PutRequest
		st.reqCount = 1
		if q.UnmarshalVT(c.Req) == nil {
			st.content = loggablePut(&q)
		}
	case "/etcdserverpb.KV/DeleteRange":
		var q pb.DeleteRangeRequest
		var r pb.DeleteRangeResponse
		if q.UnmarshalVT(c.Req) == nil && r.UnmarshalVT(resp) == nil {
			st.respCount = r.Deleted
			st.content = text(&q)
		}
	case "/etcdserverpb.KV/Txn":
		var q pb.TxnRequest
		var r pb.TxnResponse
		if q.UnmarshalVT(c.Req) == nil && r.UnmarshalVT(resp) == nil {
			ops := q.Failure
			if r.Succeeded {
				ops = q.Success
			}
			st.reqCount, st.reqSize = int64(len(ops)), 0
			for _, op := range ops {
				st.reqSize += op.SizeVT()
			}
			st.content = loggableTxn(&q)
		}
	default:
		return requestStats{reqCount: -1, reqSize: -1, respCount: -1, respSize: -1}
	}
	return st
}

func text(m proto.Message) string {
	return prototext.MarshalOptions{}.Format(m)
}
