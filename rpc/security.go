package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"

	"google.golang.org/grpc/credentials"
)

// connCredentials tells grpc-go about connections whose handshake is done: a TLS
// connection's peer has AuthInfo credentials.TLSInfo, with the verified chains, a
// plain one's has none. Handshakes belong to whoever accepts.
type connCredentials struct{}

// ServerHandshake implements credentials.TransportCredentials.
func (connCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	secure, ok := conn.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return conn, nil, nil
	}
	return conn, credentials.TLSInfo{
		State:          secure.ConnectionState(),
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (connCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("rpc: these credentials are a server's")
}

// Info implements credentials.TransportCredentials.
func (connCredentials) Info() credentials.ProtocolInfo { return credentials.ProtocolInfo{} }

// Clone implements credentials.TransportCredentials.
func (c connCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (connCredentials) OverrideServerName(string) error { return nil }

// Multiplex serves gRPC over an http.Server's HTTP/2 connections, and everything
// else by h. It is slower than ServeGRPC, and for clients of which one cannot
// know in advance what they will ask for.
func (s *Server) Multiplex(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && isGRPCContent(r.Header.Get("Content-Type")) {
			s.grpcHTTP.ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}
