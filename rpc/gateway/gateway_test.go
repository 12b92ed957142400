package gateway

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "quire/api/etcdserverpb"
)

// backend answers every Put with the length of the value as the revision, every
// watch request with its watch id, and notes the metadata.
type backend struct{ md chan metadata.MD }

func (b backend) put(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var r pb.PutRequest
	if err := dec(&r); err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	select {
	case b.md <- md:
	default:
	}
	if string(r.Key) == "missing" {
		return nil, status.Error(codes.NotFound, "etcdserver: <nothing>")
	}
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: int64(len(r.Value))}}, nil
}

func (b backend) watch(_ any, stream grpc.ServerStream) error {
	for {
		var r pb.WatchRequest
		if err := stream.RecvMsg(&r); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if r.GetCreateRequest().GetWatchId() == -1 {
			return status.Error(codes.FailedPrecondition, "no more")
		}
		if err := stream.SendMsg(&pb.WatchResponse{WatchId: r.GetCreateRequest().GetWatchId()}); err != nil {
			return err
		}
	}
}

// serve starts a gateway to a backend and returns its address.
func serve(t *testing.T, b backend, opts Options) string {
	t.Helper()
	lis := bufconn.Listen(1 << 16)
	srv := grpc.NewServer()
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "etcdserverpb.KV", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Put", Handler: b.put}}}, b)
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "etcdserverpb.Watch", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Watch", Handler: b.watch, ServerStreams: true, ClientStreams: true}}}, b)
	go func() { _ = srv.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(conn, opts)
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(g)
	t.Cleanup(func() {
		web.Close()
		_ = conn.Close()
		srv.Stop()
	})
	return web.Listener.Addr().String()
}

func post(t *testing.T, addr, path string, body io.Reader) (int, string) {
	t.Helper()
	resp, err := http.Post("http://"+addr+path, "application/json", body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestRoutesCoverTheAPI: every method has a path, but for the one that etcd
// leaves out too.
func TestRoutesCoverTheAPI(t *testing.T) {
	var routed []string
	paths := map[string]bool{}
	for _, r := range routes {
		if paths[r.path] {
			t.Errorf("%s is there twice", r.path)
		}
		paths[r.path] = true
		routed = append(routed, r.method)
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			if !slices.Contains([]protoreflect.FullName{"etcdserverpb", "v3lockpb", "v3electionpb"}, f.Package()) {
				continue
			}
			for j := range s.Methods().Len() {
				name := string(s.Methods().Get(j).FullName())
				if has := slices.Contains(routed, name); has == (name == "etcdserverpb.KV.RangeStream") {
					t.Errorf("%s: routed: %v", name, has)
				}
			}
		}
		return true
	})
}

func TestTextIsCompact(t *testing.T) {
	addr := serve(t, backend{}, Options{})
	code, body := post(t, addr, "/v3/kv/put", strings.NewReader(`{"key":"YQ==", "value":"YmM="}`))
	if want := `{"header":{"revision":"2"}}`; code != 200 || body != want {
		t.Errorf("%d %s, want %s", code, body, want)
	}
	code, body = post(t, addr, "/v3/kv/put", strings.NewReader(`{"key":"bWlzc2luZw=="}`))
	if want := `{"code":5,"message":"etcdserver: <nothing>"}`; code != 404 || body != want {
		t.Errorf("%d %s, want %s", code, body, want)
	}
}

// TestMetadata: the token arrives, and the server can tell where the call comes
// from whatever the client sends.
func TestMetadata(t *testing.T) {
	b := backend{make(chan metadata.MD, 1)}
	addr := serve(t, b, Options{})
	for _, accept := range []string{"", "text/plain"} {
		req, _ := http.NewRequest(http.MethodPost, "http://"+addr+"/v3/kv/put", strings.NewReader("{}"))
		req.Header.Set("Authorization", "secret")
		req.Header.Set("Grpc-Metadata-Hasleader", "true")
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		md := <-b.md
		for key, want := range map[string]string{"authorization": "secret", "hasleader": "true", gatewayMark: cmp.Or(accept, "*/*")} {
			if got := strings.Join(md.Get(key), "|"); got != want {
				t.Errorf("Accept %q: %s is %q, want %q", accept, key, got, want)
			}
		}
	}
}

// endless is a body that never ends, and counts what was taken of it.
type endless struct {
	head io.Reader
	fill byte
	n    atomic.Int64
}

func (e *endless) Read(p []byte) (int, error) {
	if n, err := e.head.Read(p); err == nil {
		return n, nil
	}
	for i := range p {
		p[i] = e.fill
	}
	e.n.Add(int64(len(p)))
	return len(p), nil
}

// TestBodyIsBounded: one message of a body, and what stands behind it.
func TestBodyIsBounded(t *testing.T) {
	const limit = 1 << 20
	addr := serve(t, backend{}, Options{MaxMessageBytes: limit})
	for name, body := range map[string]*endless{
		"value":  {head: strings.NewReader(`{"key":"`), fill: 'a'},
		"space":  {head: strings.NewReader(``), fill: ' '},
		"nested": {head: strings.NewReader(`{"x":`), fill: '['},
		"behind": {head: strings.NewReader(`{"key":"YQ=="}`), fill: '!'},
	} {
		code, text := post(t, addr, "/v3/kv/put", body)
		if code != http.StatusTooManyRequests && name != "nested" || code != http.StatusBadRequest && name == "nested" {
			t.Errorf("%s: %d %s", name, code, text)
		}
		if n := body.n.Load(); n > 64*limit { // what the kernel takes is not counted
			t.Errorf("%s: took %d bytes", name, n)
		}
	}
	// What is large and not too large goes through.
	value := strings.Repeat("YWFh", limit/4-100)
	if code, body := post(t, addr, "/v3/kv/put", strings.NewReader(`{"value":"`+value+`"}`)); code != 200 {
		t.Errorf("%d %s", code, body)
	}
}

// TestStreamOfManyMessages: the bound is of a message, not of the body.
func TestStreamOfManyMessages(t *testing.T) {
	const limit, n = 4 << 10, 1000
	addr := serve(t, backend{}, Options{MaxMessageBytes: limit})
	var body bytes.Buffer
	for i := range n {
		fmt.Fprintf(&body, `{"create_request":{"watch_id":"%d"}}%s`, i+1, strings.Repeat(" ", 50))
	}
	code, text := post(t, addr, "/v3/watch", &body)
	if lines := strings.Count(text, "\n"); code != 200 || lines != n || !strings.HasPrefix(text, `{"result":{"watch_id":"1"}}`+"\n") {
		t.Errorf("%d, %d lines: %.200s", code, lines, text)
	}
	body.Reset()
	fmt.Fprintf(&body, `{"create_request":{"watch_id":"1"}}{"create_request":{"key":"%s"}}`, strings.Repeat("YWFh", limit))
	resp, err := http.Post("http://"+addr+"/v3/watch", "", &body)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); !strings.Contains(string(text), `{"error":{"code":1,`) { // and is cut
		t.Errorf("a message that is too large: %s", text)
	}
}

// TestSlowBody: a client that sends its body bit by bit is told off.
func TestSlowBody(t *testing.T) {
	addr := serve(t, backend{}, Options{BodyWait: 50 * time.Millisecond})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 400")) {
		t.Errorf("%q, %v", answer, err)
	}
	// The deadline is over with the body: a watch goes on.
	pr, pw := io.Pipe()
	defer pw.Close()
	req, _ := http.NewRequest(http.MethodPost, "http://"+addr+"/v3/watch", pr)
	go func() {
		for range 3 {
			_, _ = io.WriteString(pw, `{"create_request":{"watch_id":"1"}}`)
			time.Sleep(60 * time.Millisecond)
		}
		pw.Close()
	}()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); strings.Count(string(text), "result") != 3 {
		t.Errorf("watch: %s", text)
	}
}

// TestStreamsOnOneConnection: a connection serves one stream after the other, also
// when the client sends the body bit by bit or leaves it open.
func TestStreamsOnOneConnection(t *testing.T) {
	addr := serve(t, backend{}, Options{})
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for i := range 300 {
		var body io.Reader = strings.NewReader(`{"create_request":{"watch_id":"1"}}{"create_request":{"watch_id":"2"}}`)
		if i%3 == 2 {
			body = io.MultiReader(body, strings.NewReader(" ")) // of unknown length
		}
		resp, err := client.Post("http://"+addr+"/v3/watch", "", body)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := `{"result":{"watch_id":"1"}}` + "\n" + `{"result":{"watch_id":"2"}}` + "\n"; err != nil || string(text) != want {
			t.Fatalf("request %d: %q, %v", i, text, err)
		}
	}
}

// TestStreamThatEndsFirst: the server ends the stream while the client still sends.
// The client gets all of the answer.
func TestStreamThatEndsFirst(t *testing.T) {
	addr := serve(t, backend{}, Options{})
	for _, length := range []int64{-1, 10_000} {
		pr, pw := io.Pipe()
		req, _ := http.NewRequest(http.MethodPost, "http://"+addr+"/v3/watch", pr)
		req.ContentLength = length
		go func() { _, _ = io.WriteString(pw, `{"create_request":{"watch_id":"-1"}}`) }()
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body) // cut, if the length was known
		resp.Body.Close()
		pw.Close()
		if !strings.Contains(string(text), `{"error":{"code":9,"message":"no more"}}`) {
			t.Errorf("length %d: %q", length, text)
		}
	}
}

// TestNoGoroutineIsLeft: clients that go away in the middle, in every manner.
func TestNoGoroutineIsLeft(t *testing.T) {
	addr := serve(t, backend{}, Options{MaxMessageBytes: 1 << 16})
	post(t, addr, "/v3/kv/put", strings.NewReader("{}"))
	before := runtime.NumGoroutine()
	for i := range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		if i%2 == 0 {
			ws, _, err := websocket.DefaultDialer.DialContext(ctx, "ws://"+addr+"/v3/watch", nil)
			if err != nil {
				t.Fatal(err)
			}
			_ = ws.WriteMessage(websocket.TextMessage, []byte(`{"create_request":{}}`))
			if i%4 == 0 {
				_, _, _ = ws.ReadMessage()
			}
			ws.Close()
		} else {
			pr, pw := io.Pipe()
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr+"/v3/watch", pr)
			go func() { _, _ = io.WriteString(pw, `{"create_request":{}}`) }()
			if resp, err := http.DefaultClient.Do(req); err == nil {
				resp.Body.Close()
			}
			pw.Close()
		}
		cancel()
	}
	http.DefaultClient.CloseIdleConnections()
	var now int
	for range 200 {
		if now = runtime.NumGoroutine(); now <= before+2 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	buf := make([]byte, 1<<16)
	t.Errorf("%d goroutines, %d before\n%s", now, before, buf[:runtime.Stack(buf, true)])
}

func TestUnknownMethod(t *testing.T) {
	for _, name := range []string{"etcdserverpb.KV.Nothing", "etcdserverpb.KV"} {
		if _, err := newCall("/x", name); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// FuzzDecode: whatever is no message is refused, and what is one survives the
// way out and in again.
func FuzzDecode(f *testing.F) {
	f.Add(`{"compare":[{"key":"YQ==","target":1}],"success":[{"requestPut":{"key":"YQ==","lease":"1"}}]}`)
	f.Add(`{"success":[{"request_txn":{"success":[{"request_txn":{}}]}}]}{`)
	m := newMarshaler()
	f.Fuzz(func(t *testing.T, text string) {
		var r, again pb.TxnRequest
		if m.NewDecoder(&boundedBody{r: strings.NewReader(text), limit: 1 << 20}).Decode(&r) != nil {
			return
		}
		b, err := m.Marshal(&r)
		if err != nil {
			return // text that is no UTF-8
		}
		if err := m.NewDecoder(bytes.NewReader(b)).Decode(&again); err != nil || !proto.Equal(&r, &again) {
			t.Errorf("%q became %q: %v", text, b, err)
		}
	})
}
