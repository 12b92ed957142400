package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"quire/raft/peer"
)

// peerHTTP serves what members ask over HTTP on the peer port: who is in the
// cluster, and which version runs. Until the member knows, it says so at once.
type peerHTTP struct {
	member atomic.Pointer[member] // nil: starting
	log    *zap.Logger
	said   atomic.Int64 // when an etcd member was turned away last
}

const turnedAwayEvery = time.Minute

// handler returns the handler of the peer port.
func (p *peerHTTP) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/members", p.whenReady(p.serveMembers))
	mux.HandleFunc("/version", p.whenReady(func(w http.ResponseWriter, r *http.Request, m *member) { m.rpc.ServeVersion(w, r) }))
	mux.HandleFunc("/health", p.whenReady(func(w http.ResponseWriter, r *http.Request, m *member) { m.rpc.ServeHealth(w, r) }))
	mux.HandleFunc("/raft", p.turnAway)
	mux.HandleFunc("/raft/", p.turnAway)
	mux.HandleFunc("/", http.NotFound)
	return mux
}

func (p *peerHTTP) whenReady(serve func(http.ResponseWriter, *http.Request, *member)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set(protocolHeader, peer.Protocol())
		if m := p.member.Load(); m != nil {
			serve(w, r, m)
			return
		}
		http.Error(w, "the member is starting", http.StatusServiceUnavailable)
	}
}

func (p *peerHTTP) serveMembers(w http.ResponseWriter, _ *http.Request, m *member) {
	list := []peerMember{}
	for _, x := range m.engine.Members() {
		list = append(list, peerMember{ID: x.ID, PeerURLs: x.PeerURLs, IsLearner: x.IsLearner, Name: x.Name, ClientURLs: x.ClientURLs})
	}
	w.Header().Set(clusterHeader, hex(m.cid))
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(list); err != nil {
		p.log.Warn("failed to encode membership members", zap.Error(err))
	}
}

// turnAway answers a member of etcd's own making: its protocol is another. The
// words are those that make it log why.
func (p *peerHTTP) turnAway(w http.ResponseWriter, r *http.Request) {
	if m := p.member.Load(); m != nil {
		w.Header().Set(clusterHeader, hex(m.cid))
	}
	w.Header().Set("X-Server-Version", apiVersion)
	now := time.Now().UnixNano()
	if last := p.said.Load(); now-last > int64(turnedAwayEvery) && p.said.CompareAndSwap(last, now) {
		p.log.Warn("failed version compatibility check: a member of etcd's own server connects, whose peer protocol quire does not speak",
			zap.String("remote-addr", r.RemoteAddr), zap.String("remote-peer-server-name", printable(r.Header.Get("X-Server-From"))),
			zap.String("remote-peer-server-version", printable(r.Header.Get("X-Server-Version"))))
	}
	http.Error(w, "incompatible version", http.StatusPreconditionFailed)
}

// printable bounds what a stranger may write into the log.
func printable(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), 64)], "?")
}
