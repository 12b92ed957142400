package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	epb "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	lpb "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"quire/test/harness"
)

// upstreamPaths are the paths that the annotations in etcd's .proto files declare.
func upstreamPaths(t *testing.T) (paths []string) {
	t.Helper()
	for _, file := range []protoreflect.FileDescriptor{pb.File_rpc_proto, lpb.File_v3lock_proto, epb.File_v3election_proto} {
		services := file.Services()
		for i := range services.Len() {
			methods := services.Get(i).Methods()
			for j := range methods.Len() {
				rule, ok := proto.GetExtension(methods.Get(j).Options(), annotations.E_Http).(*annotations.HttpRule)
				if !ok || rule == nil {
					continue
				}
				for _, r := range append([]*annotations.HttpRule{rule}, rule.AdditionalBindings...) {
					if r.GetPost() == "" || r.Body != "*" {
						t.Errorf("%s: %v is not a POST of the whole message", methods.Get(j).FullName(), r)
					}
					paths = append(paths, r.GetPost())
				}
			}
		}
	}
	slices.Sort(paths)
	return paths
}

// TestEveryPath: each path that etcd declares leads to a method. What the method says of a body that is no JSON comes
// from behind the path.
func TestEveryPath(t *testing.T) {
	t.Parallel()
	s := harness.Start(t)
	paths := upstreamPaths(t)
	if len(paths) < 45 {
		t.Fatalf("only %d paths are declared: %v", len(paths), paths)
	}
	for _, path := range paths {
		var got struct {
			Code    int
			Message string
		}
		a := send(t, s, request{method: http.MethodPut, path: path})
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || got.Message != "Method Not Allowed" {
			t.Errorf("PUT %s: %v", path, a)
		}
		if path == "/v3/watch" || path == "/v3/lease/keepalive" {
			continue // a stream whose body is wrong waits for the client to go
		}
		a = send(t, s, request{path: path, body: "{"})
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != http.StatusBadRequest || got.Message != "unexpected EOF" {
			t.Errorf("POST %s: %v", path, a)
		}
	}
}
