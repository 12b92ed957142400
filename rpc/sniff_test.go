package rpc

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"

	pb "quire/api/etcdserverpb"
)

// frames is what a client sends: its preface and then what write adds.
func frames(write func(f *http2.Framer, headers func(fields ...string) []byte)) []byte {
	var b bytes.Buffer
	b.WriteString(http2.ClientPreface)
	write(http2.NewFramer(&b, nil), func(fields ...string) []byte {
		var block bytes.Buffer
		enc := hpack.NewEncoder(&block)
		for i := 0; i < len(fields); i += 2 {
			_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
		}
		return block.Bytes()
	})
	return b.Bytes()
}

func TestSniffFrames(t *testing.T) {
	header := func(end bool, fields ...string) []byte {
		return frames(func(f *http2.Framer, headers func(...string) []byte) {
			_ = f.WriteSettings()
			_ = f.WriteWindowUpdate(0, 1<<20)
			_ = f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 1, BlockFragment: headers(fields...), EndHeaders: end, PadLength: 7,
				Priority: http2.PriorityParam{StreamDep: 3, Weight: 9},
			})
		})
	}
	for _, tc := range []struct {
		name string
		sent []byte
		want sniffed
	}{
		{"settings alone", frames(func(f *http2.Framer, _ func(...string) []byte) { _ = f.WriteSettings() }), sniffedUnknown},
		{"a page", header(true, ":method", "GET", ":path", "/health"), sniffedHTTP},
		{"JSON", header(true, ":method", "POST", "content-type", "application/json"), sniffedHTTP},
		{"gRPC", header(true, ":method", "POST", "content-type", "application/grpc"), sniffedGRPC},
		{"gRPC with a subtype", header(true, "content-type", "application/grpc+proto"), sniffedGRPC},
		{"more headers follow", header(false, ":method", "GET"), sniffedGRPC},
		{"more headers follow the content type", header(false, "content-type", "text/plain"), sniffedHTTP},
		{"a ping", frames(func(f *http2.Framer, _ func(...string) []byte) {
			_ = f.WriteSettings()
			_ = f.WritePing(false, [8]byte{})
		}), sniffedGRPC},
	} {
		if got, err := sniffFrames(tc.sent); err != nil || got != tc.want {
			t.Errorf("%s: %v, %v", tc.name, got, err)
		}
		for n := range len(tc.sent) { // until all has come, nothing else may be concluded
			if got, err := sniffFrames(tc.sent[:n]); err != nil || got != sniffedUnknown && got != tc.want {
				t.Errorf("%s, %d bytes: %v, %v", tc.name, n, got, err)
			}
		}
	}
	if _, err := sniffFrames([]byte("PRI * HTTP/1.1\r\n")); err == nil {
		t.Error("that is no preface")
	}
}

func FuzzSniffFrames(f *testing.F) {
	f.Add([]byte{})
	f.Add(frames(func(f *http2.Framer, headers func(...string) []byte) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0})
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers("content-type", "application/grpc"), EndHeaders: true})
	})[len(http2.ClientPreface):])
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append([]byte(http2.ClientPreface), b...)
		whole, err := sniffFrames(b)
		if err != nil {
			t.Fatal(err)
		}
		if half, _ := sniffFrames(b[:len(b)/2]); half != sniffedUnknown && half != whole {
			t.Errorf("%v, but %v when only half had come", whole, half)
		}
	})
}

// TestReplayWithoutAck: wherever what a client sends is torn apart, only its first acknowledgment is missing.
func TestReplayWithoutAck(t *testing.T) {
	sent := func(acks int) []byte {
		return frames(func(f *http2.Framer, headers func(...string) []byte) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0})
			if acks > 1 {
				_ = f.WriteSettingsAck()
			}
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers(":method", "GET"), EndHeaders: true})
			_ = f.WriteData(1, false, []byte(settingsAck)) // not a frame
			if acks > 0 {
				_ = f.WriteSettingsAck()
			}
			_ = f.WriteData(1, true, []byte("tail"))
		})
	}
	for acks, want := range map[int][]byte{0: sent(0), 1: sent(0), 2: sent(1)} {
		all := sent(acks)
		for i := range all {
			for j := i; j <= len(all); j += 7 {
				var c replayConn
				var got []byte
				for _, part := range [][]byte{all[:i], all[i:j], all[j:]} {
					got = append(got, c.withoutAck(part)...)
				}
				if !bytes.Equal(got, want) {
					t.Fatalf("%d acknowledgments, parts of %d and %d: %q", acks, i, j-i, got)
				}
			}
		}
	}
}

// selfSigned is a certificate for 127.0.0.1 that vouches for itself.
func selfSigned(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	template.Subject.CommonName = "alice"
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// offers is a listener's memory of what clients offered by ALPN. Only one
// handshake at a time is under way in these tests.
type offers struct{ last []string }

// serveSecure serves s on one port with TLS and plain text.
func serveSecure(t *testing.T, s *Server) (addr string, client *tls.Config) {
	t.Helper()
	cert, pool := selfSigned(t)
	o := &offers{}
	server := &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{"h2", "http/1.1"}}
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		o.last = h.SupportedProtos
		return nil, nil
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Handler: s.Multiplex(s.ClientHandler())}
	front := NewFrontend(lis, FrontendConfig{
		Handshake: func(conn net.Conn) (*tls.Conn, error) {
			c := tls.Server(conn, server)
			return c, c.Handshake()
		},
		Offered:    func(*tls.Conn) []string { return o.last },
		ServeHTTP2: func(conn net.Conn) { (&http2.Server{}).ServeConn(conn, &http2.ServeConnOpts{Handler: hs.Handler}) },
	})
	go func() { _ = s.ServeGRPC(front.GRPC()) }()
	go func() { _ = hs.Serve(front.HTTP()) }()
	t.Cleanup(func() {
		_ = hs.Close()
		_ = front.Close()
	})
	return lis.Addr().String(), &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}
}

// TestOnePort asks one port for HTTP and gRPC in every way.
func TestOnePort(t *testing.T) {
	s := newTestServer(t, newFake())
	addr, cfg := serveSecure(t, s)
	for name, transport := range map[string]http.RoundTripper{
		"HTTP/1.1":           &http.Transport{TLSClientConfig: cfg.Clone()},
		"HTTP/2 by choice":   &http.Transport{TLSClientConfig: cfg.Clone(), ForceAttemptHTTP2: true},
		"HTTP/2 alone":       &http2.Transport{TLSClientConfig: cfg.Clone()},
		"plain and HTTP/1.1": http.DefaultTransport,
	} {
		scheme := "https"
		if strings.HasPrefix(name, "plain") {
			scheme = "http"
		}
		for range 2 {
			resp, err := (&http.Client{Transport: transport}).Get(scheme + "://" + addr + "/version")
			if err != nil {
				t.Errorf("%s: %v", name, err)
				break
			}
			body, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if !strings.Contains(string(body), "etcdserver") || strings.HasPrefix(name, "HTTP/2") != (resp.ProtoMajor == 2) {
				t.Errorf("%s: %s, %s, %v, %q", name, resp.Proto, resp.Status, resp.Header, body)
			}
		}
	}
	put := s.byName[putMethod]
	handler := put.Unary
	var seen *peer.Peer
	put.Unary = func(c *Call) {
		seen, _ = peer.FromContext(c.Ctx)
		handler(c)
	}
	for name, creds := range map[string]credentials.TransportCredentials{
		"h2 alone":                        credentials.NewTLS(cfg.Clone()),
		"a client that could do HTTP/1.1": credentials.NewTLS(&tls.Config{RootCAs: cfg.RootCAs, Certificates: cfg.Certificates, NextProtos: []string{"h2", "http/1.1"}}),
		"plain":                           insecure.NewCredentials(),
	} {
		conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.ForceCodecV2(clientCodec{})))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := conn.Invoke(ctx, putMethod, &pb.PutRequest{Key: []byte("k")}, &pb.PutResponse{}); err != nil {
			t.Errorf("gRPC, %s: %v", name, err)
			cancel()
			continue
		}
		info, secure := seen.AuthInfo.(credentials.TLSInfo)
		if secure != (name != "plain") || secure && info.State.VerifiedChains[0][0].Subject.CommonName != "alice" {
			t.Errorf("gRPC, %s: the server sees %T", name, seen.AuthInfo)
		}
		cancel()
		_ = conn.Close()
	}
}
