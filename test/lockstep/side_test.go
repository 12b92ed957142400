package lockstep

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"quire/test/harness"
)

// stepLimit is how long one step may take on one server.
const stepLimit = time.Minute

// side is one of the two servers with its open watch stream.
type side struct {
	name   string
	server *harness.Server
	conn   *grpc.ClientConn
	watch  *watchSide
	tokens []string // that were handed out

	compacted int64 // the compact revision
	roll      roll  // the members, see upkeep_test.go
}

// fastElection makes a server of one ready at once; no lease is short enough for it to matter.
var fastElection = []string{"--heartbeat-interval", "20", "--election-timeout", "200"}

func newSide(t *testing.T, name string, server *harness.Server) *side {
	t.Helper()
	s := &side{name: name, server: server}
	s.connect(t)
	return s
}

func (s *side) connect(t *testing.T) {
	t.Helper()
	s.conn = s.server.Conn(t)
	s.watch = nil
}

// stop ends the server before the test does, for histories that are run many times.
func (s *side) stop() {
	s.conn.Close()
	s.server.Discard()
}

// do runs a step.
func (s *side) do(t *testing.T, st step) answer {
	t.Helper()
	switch st.method {
	case restart:
		s.conn.Close()
		s.server.Kill()
		s.server.Restart(t)
		s.connect(t)
		return answer{}
	case watchCreate:
		return s.watching(t).create(st.msg.(*pb.WatchCreateRequest))
	case watchCancel:
		return s.watching(t).cancel(st.msg.(*pb.WatchCancelRequest))
	case watchAlone:
		return s.watchAlone(t, st.msg.(*pb.WatchCreateRequest))
	case watchMay:
		ctx, cancel := context.WithCancel(s.withToken(context.Background(), st.as))
		defer cancel()
		return s.openWatch(t, ctx).create(st.msg.(*pb.WatchCreateRequest))
	case watchSync:
		if s.watch == nil {
			return answer{}
		}
		return s.watch.sync(s.revision(t))
	}
	a := s.call(st)
	if r, ok := st.msg.(*pb.CompactionRequest); ok && a.code == "" {
		s.compacted = r.Revision
	}
	return a
}

// call makes a request and normalises the answer.
func (s *side) call(st step) answer {
	ctx, cancel := context.WithTimeout(s.withToken(context.Background(), st.as), stepLimit)
	defer cancel()
	m := methods[st.method]
	desc := &grpc.StreamDesc{ServerStreams: m.stream, ClientStreams: m.client}
	stream, err := s.conn.NewStream(ctx, desc, m.path, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return failed(err)
	}
	request := s.roll.out(st).bytes()
	if err := stream.SendMsg(&request); err != nil && !errors.Is(err, io.EOF) {
		return failed(err)
	}
	if err := stream.CloseSend(); err != nil {
		return failed(err)
	}
	var a answer
	for {
		var data []byte
		if err := stream.RecvMsg(&data); err != nil {
			if !errors.Is(err, io.EOF) {
				f := failed(err)
				a.code, a.text = f.code, f.text
			}
			break
		}
		resp := m.response()
		if err := proto.Unmarshal(data, resp); err != nil {
			return answer{code: broken, text: "the answer is no message: " + err.Error()}
		}
		if login, ok := resp.(*pb.AuthenticateResponse); ok {
			s.tokens = append(s.tokens, login.Token)
		}
		if m.bare {
			resp = m.response()
		}
		normalise(resp.ProtoReflect())
		s.roll.in(resp)
		a.responses = append(a.responses, resp)
		if !m.stream {
			break
		}
	}
	if st.raw != nil && a.code == "Internal" {
		a.text = "" // the words of the protobuf library
	}
	return a
}

// withToken adds a step's token to what goes out.
func (s *side) withToken(ctx context.Context, as string) context.Context {
	if as == "" {
		return ctx
	}
	if n, err := strconv.Atoi(as); err == nil && n < len(s.tokens) {
		as = s.tokens[n]
	}
	return metadata.AppendToOutgoingContext(ctx, "token", as)
}

func failed(err error) answer {
	s := status.Convert(err)
	return answer{code: s.Code().String(), text: s.Message()}
}

// normalise takes out what may differ between two servers.
func normalise(m protoreflect.Message) {
	switch v := m.Interface().(type) {
	case *pb.ResponseHeader:
		v.ClusterId, v.MemberId, v.RaftTerm = min(v.ClusterId, 1), min(v.MemberId, 1), min(v.RaftTerm, 1)
	case *pb.AuthenticateResponse:
		v.Token = "a token"
	case *pb.LeaseTimeToLiveResponse:
		v.TTL = min(v.TTL, 1)
		slices.SortFunc(v.Keys, func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(v.Leases, func(a, b *pb.LeaseStatus) int { return int(a.ID - b.ID) })
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				normalise(v.List().Get(i).Message())
			}
		default:
			normalise(v.Message())
		}
		return true
	})
}

// revision asks for the current revision.
func (s *side) revision(t *testing.T) int64 {
	t.Helper()
	a := s.call(step{method: "Range", msg: &pb.RangeRequest{Key: []byte{0}}})
	if a.code != "" {
		t.Fatalf("%s: range: %s %s", s.name, a.code, a.text)
	}
	return a.responses[0].(*pb.RangeResponse).GetHeader().GetRevision()
}

func (a answer) header() *pb.ResponseHeader {
	if len(a.responses) == 0 {
		return nil
	}
	h, ok := a.responses[len(a.responses)-1].(interface{ GetHeader() *pb.ResponseHeader })
	if !ok {
		return nil
	}
	return h.GetHeader()
}

func (a answer) String() string {
	if a.code != "" {
		return fmt.Sprintf("%s: %s (after %d responses)", a.code, a.text, len(a.responses))
	}
	return fmt.Sprint(a.responses)
}
