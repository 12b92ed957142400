package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	// The descriptors of everything that routes names.
	_ "quire/api/etcdserverpb"
	_ "quire/api/v3electionpb"
	_ "quire/api/v3lockpb"
)

// Options of a Gateway.
type Options struct {
	// MaxMessageBytes bounds one message of a request in its JSON form; 0 is no
	// bound. It should leave the server itself to refuse what is too large but
	// not absurd, for clients know its words.
	MaxMessageBytes int64
	// BodyWait is how long the body of a request that is not a stream may take;
	// 0 is a minute.
	BodyWait time.Duration
	Logger   *zap.Logger // nil: none
}

// Gateway is the JSON API as an http.Handler for paths under /v3/.
type Gateway struct {
	conn grpc.ClientConnInterface
	opts Options
	mux  *runtime.ServeMux
}

// New makes a gateway to the server behind conn, which stays the caller's.
func New(conn grpc.ClientConnInterface, opts Options) (*Gateway, error) {
	if opts.Logger == nil {
		opts.Logger = zap.NewNop()
	}
	if opts.BodyWait == 0 {
		opts.BodyWait = bodyWait
	}
	g := &Gateway{conn: conn, opts: opts}
	g.mux = runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, newMarshaler()),
		runtime.WithMetadata(markGateway),
	)
	for _, r := range routes {
		c, err := newCall(r.path, r.method)
		if err != nil {
			return nil, err
		}
		if err := g.mux.HandlePath(http.MethodPost, r.path, g.handler(c)); err != nil {
			return nil, fmt.Errorf("gateway: %s: %w", r.path, err)
		}
	}
	return g, nil
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if isWebsocket(r) {
		g.serveWebsocket(w, r)
		return
	}
	g.mux.ServeHTTP(w, r)
}

// gatewayMark is metadata by which the server knows a call that came through a
// gateway: the certificate of such a call's connection is not its user's. The
// library makes it of the request's Accept header, which a request need not have.
const gatewayMark = "grpcgateway-accept"

func markGateway(_ context.Context, r *http.Request) metadata.MD {
	if r.Header.Get("Accept") != "" {
		return nil
	}
	return metadata.Pairs(gatewayMark, "*/*")
}

// call is what a route leads to.
type call struct {
	path          string
	fullName      string // the HTTP/2 path
	req, resp     protoreflect.MessageType
	desc          grpc.StreamDesc
	streams, bidi bool
}

func newCall(path, method string) (*call, error) {
	fail := func(err error) (*call, error) { return nil, fmt.Errorf("gateway: %s: %w", method, err) }
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(method))
	if err != nil {
		return fail(err)
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return fail(errors.New("not a method"))
	}
	c := &call{
		path:     path,
		fullName: fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name()),
		streams:  m.IsStreamingServer(), bidi: m.IsStreamingClient(),
		desc: grpc.StreamDesc{StreamName: string(m.Name()), ServerStreams: m.IsStreamingServer(), ClientStreams: m.IsStreamingClient()},
	}
	if c.req, err = protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName()); err != nil {
		return fail(err)
	}
	if c.resp, err = protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName()); err != nil {
		return fail(err)
	}
	return c, nil
}

// exchange is one request on its way.
type exchange struct {
	*call
	g       *Gateway
	ctx     context.Context
	cancel  context.CancelFunc
	w       http.ResponseWriter
	r       *http.Request
	in      runtime.Decoder
	body    *boundedBody
	out     runtime.Marshaler
	headers runtime.ServerMetadata
}

func (g *Gateway) handler(c *call) runtime.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request, _ map[string]string) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		in, out := runtime.MarshalerForRequest(g.mux, r)
		annotated, err := runtime.AnnotateContext(ctx, g.mux, r, c.fullName, runtime.WithHTTPPathPattern(c.path))
		if err != nil {
			runtime.HTTPError(ctx, g.mux, out, w, r, err)
			return
		}
		body := &boundedBody{r: r.Body, limit: g.opts.MaxMessageBytes}
		x := &exchange{call: c, g: g, ctx: annotated, cancel: cancel, w: w, r: r, in: in.NewDecoder(body), body: body, out: out}
		switch {
		case c.bidi:
			x.converse()
		case c.streams:
			x.listen()
		default:
			x.ask()
		}
	}
}

func (x *exchange) fail(err error) {
	runtime.HTTPError(runtime.NewServerMetadataContext(x.ctx, x.headers), x.g.mux, x.out, x.w, x.r, err)
}

// ask serves a unary method.
func (x *exchange) ask() {
	req, err := x.receiveOne()
	if err != nil {
		x.fail(err)
		return
	}
	resp := x.resp.New().Interface()
	if err := x.g.conn.Invoke(x.ctx, x.fullName, req, resp, grpc.Header(&x.headers.HeaderMD), grpc.Trailer(&x.headers.TrailerMD)); err != nil {
		x.fail(err)
		return
	}
	ctx := runtime.NewServerMetadataContext(x.ctx, x.headers)
	runtime.ForwardResponseMessage(ctx, x.g.mux, x.out, x.w, x.r, resp, x.g.mux.GetForwardResponseOptions()...)
}

// receiveOne reads the body of a request that is one message. No body is the
// empty message.
func (x *exchange) receiveOne() (proto.Message, error) {
	rc := http.NewResponseController(x.w)
	timed := rc.SetReadDeadline(time.Now().Add(x.g.opts.BodyWait)) == nil // a websocket knows no deadlines
	req := x.req.New().Interface()
	if err := x.in.Decode(req); err != nil && !errors.Is(err, io.EOF) {
		return nil, badBody(err) // what is left of the body keeps its deadline
	}
	if !timed {
		return req, nil // and goes on behind the message
	}
	// net/http notices that a client goes away only when the body is read.
	if _, err := io.Copy(io.Discard, x.body); err != nil {
		return nil, badBody(err)
	}
	return req, rc.SetReadDeadline(time.Time{})
}

// badBody is the status of a body that cannot be decoded.
func badBody(err error) error {
	if errors.Is(err, errBodyTooLarge) {
		return status.Error(codes.ResourceExhausted, errBodyTooLarge.Error())
	}
	return status.Error(codes.InvalidArgument, err.Error())
}
