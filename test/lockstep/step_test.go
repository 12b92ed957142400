package lockstep

import (
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// step is one element of a history.
type step struct {
	method string        // a key of methods, or one of the acts below
	msg    proto.Message // the request, unless raw is set
	raw    []byte        // request bytes that may be no message
	as     string        // which token goes with it: a number, the how-manieth that was handed out; else the token itself
}

// Acts of the test itself. Those of the first three lines carry a message.
const (
	watchCreate = "WatchCreate" // on the long-lived stream
	watchCancel = "WatchCancel"
	watchAlone  = "WatchAlone" // on a stream of its own
	watchMay    = "WatchMay"   // on a stream of its own, of which only the first response counts
	watchSync   = "WatchSync"
	restart     = "Restart"
)

// method tells how a unary or server-streaming call is made.
type method struct {
	path     string
	request  func() proto.Message
	response func() proto.Message
	stream   bool // several responses
	client   bool // requests are streamed, too
	bare     bool // only the status of the answer is compared
}

var methods = map[string]method{
	"Range":       {path: "/etcdserverpb.KV/Range", request: newer[pb.RangeRequest](), response: newer[pb.RangeResponse]()},
	"RangeStream": {path: "/etcdserverpb.KV/RangeStream", request: newer[pb.RangeRequest](), response: newer[pb.RangeStreamResponse](), stream: true},
	"Put":         {path: "/etcdserverpb.KV/Put", request: newer[pb.PutRequest](), response: newer[pb.PutResponse]()},
	"DeleteRange": {path: "/etcdserverpb.KV/DeleteRange", request: newer[pb.DeleteRangeRequest](), response: newer[pb.DeleteRangeResponse]()},
	"Txn":         {path: "/etcdserverpb.KV/Txn", request: newer[pb.TxnRequest](), response: newer[pb.TxnResponse]()},
	"Compact":     {path: "/etcdserverpb.KV/Compact", request: newer[pb.CompactionRequest](), response: newer[pb.CompactionResponse]()},
	"Grant":       {path: "/etcdserverpb.Lease/LeaseGrant", request: newer[pb.LeaseGrantRequest](), response: newer[pb.LeaseGrantResponse]()},
	"Revoke":      {path: "/etcdserverpb.Lease/LeaseRevoke", request: newer[pb.LeaseRevokeRequest](), response: newer[pb.LeaseRevokeResponse]()},
	"TimeToLive":  {path: "/etcdserverpb.Lease/LeaseTimeToLive", request: newer[pb.LeaseTimeToLiveRequest](), response: newer[pb.LeaseTimeToLiveResponse]()},
	"Leases":      {path: "/etcdserverpb.Lease/LeaseLeases", request: newer[pb.LeaseLeasesRequest](), response: newer[pb.LeaseLeasesResponse]()},
	"KeepAlive":   {path: "/etcdserverpb.Lease/LeaseKeepAlive", request: newer[pb.LeaseKeepAliveRequest](), response: newer[pb.LeaseKeepAliveResponse](), stream: true, client: true},
	"HashKV":      {path: "/etcdserverpb.Maintenance/HashKV", request: newer[pb.HashKVRequest](), response: newer[pb.HashKVResponse]()},

	"Alarm":      {path: "/etcdserverpb.Maintenance/Alarm", request: newer[pb.AlarmRequest](), response: newer[pb.AlarmResponse]()},
	"Status":     {path: "/etcdserverpb.Maintenance/Status", request: newer[pb.StatusRequest](), response: newer[pb.StatusResponse](), bare: true},
	"Defragment": {path: "/etcdserverpb.Maintenance/Defragment", request: newer[pb.DefragmentRequest](), response: newer[pb.DefragmentResponse]()},
	"Hash":       {path: "/etcdserverpb.Maintenance/Hash", request: newer[pb.HashRequest](), response: newer[pb.HashResponse](), bare: true},
	"MoveLeader": {path: "/etcdserverpb.Maintenance/MoveLeader", request: newer[pb.MoveLeaderRequest](), response: newer[pb.MoveLeaderResponse]()},
	"MemberList": {path: "/etcdserverpb.Cluster/MemberList", request: newer[pb.MemberListRequest](), response: newer[pb.MemberListResponse](), bare: true},
	"MemberAdd":  {path: "/etcdserverpb.Cluster/MemberAdd", request: newer[pb.MemberAddRequest](), response: newer[pb.MemberAddResponse](), bare: true},

	"AuthEnable":           {path: "/etcdserverpb.Auth/AuthEnable", request: newer[pb.AuthEnableRequest](), response: newer[pb.AuthEnableResponse]()},
	"AuthDisable":          {path: "/etcdserverpb.Auth/AuthDisable", request: newer[pb.AuthDisableRequest](), response: newer[pb.AuthDisableResponse]()},
	"AuthStatus":           {path: "/etcdserverpb.Auth/AuthStatus", request: newer[pb.AuthStatusRequest](), response: newer[pb.AuthStatusResponse]()},
	"Authenticate":         {path: "/etcdserverpb.Auth/Authenticate", request: newer[pb.AuthenticateRequest](), response: newer[pb.AuthenticateResponse]()},
	"UserAdd":              {path: "/etcdserverpb.Auth/UserAdd", request: newer[pb.AuthUserAddRequest](), response: newer[pb.AuthUserAddResponse]()},
	"UserGet":              {path: "/etcdserverpb.Auth/UserGet", request: newer[pb.AuthUserGetRequest](), response: newer[pb.AuthUserGetResponse]()},
	"UserList":             {path: "/etcdserverpb.Auth/UserList", request: newer[pb.AuthUserListRequest](), response: newer[pb.AuthUserListResponse]()},
	"UserDelete":           {path: "/etcdserverpb.Auth/UserDelete", request: newer[pb.AuthUserDeleteRequest](), response: newer[pb.AuthUserDeleteResponse]()},
	"UserChangePassword":   {path: "/etcdserverpb.Auth/UserChangePassword", request: newer[pb.AuthUserChangePasswordRequest](), response: newer[pb.AuthUserChangePasswordResponse]()},
	"UserGrantRole":        {path: "/etcdserverpb.Auth/UserGrantRole", request: newer[pb.AuthUserGrantRoleRequest](), response: newer[pb.AuthUserGrantRoleResponse]()},
	"UserRevokeRole":       {path: "/etcdserverpb.Auth/UserRevokeRole", request: newer[pb.AuthUserRevokeRoleRequest](), response: newer[pb.AuthUserRevokeRoleResponse]()},
	"RoleAdd":              {path: "/etcdserverpb.Auth/RoleAdd", request: newer[pb.AuthRoleAddRequest](), response: newer[pb.AuthRoleAddResponse]()},
	"RoleGet":              {path: "/etcdserverpb.Auth/RoleGet", request: newer[pb.AuthRoleGetRequest](), response: newer[pb.AuthRoleGetResponse]()},
	"RoleList":             {path: "/etcdserverpb.Auth/RoleList", request: newer[pb.AuthRoleListRequest](), response: newer[pb.AuthRoleListResponse]()},
	"RoleDelete":           {path: "/etcdserverpb.Auth/RoleDelete", request: newer[pb.AuthRoleDeleteRequest](), response: newer[pb.AuthRoleDeleteResponse]()},
	"RoleGrantPermission":  {path: "/etcdserverpb.Auth/RoleGrantPermission", request: newer[pb.AuthRoleGrantPermissionRequest](), response: newer[pb.AuthRoleGrantPermissionResponse]()},
	"RoleRevokePermission": {path: "/etcdserverpb.Auth/RoleRevokePermission", request: newer[pb.AuthRoleRevokePermissionRequest](), response: newer[pb.AuthRoleRevokePermissionResponse]()},
}

func newer[T any, P interface {
	*T
	proto.Message
}]() func() proto.Message {
	return func() proto.Message { return P(new(T)) }
}

// bytes are what goes over the wire.
func (s step) bytes() []byte {
	if s.raw != nil || s.msg == nil {
		return s.raw
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(s.msg)
	if err != nil {
		panic(err) // a message of the generator's own making
	}
	return b
}

// String is the step as one line, which parse reads back.
func (s step) String() string {
	name := s.method
	if s.as != "" {
		name += "@" + s.as
	}
	switch {
	case s.raw != nil:
		return fmt.Sprintf("%s hex %x", name, s.raw)
	case s.msg == nil:
		return name
	}
	text := prototext.MarshalOptions{Multiline: false}.Format(s.msg)
	return name + " " + strings.Join(strings.Fields(text), " ")
}

func parse(line string) (step, error) {
	name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	name, as, _ := strings.Cut(name, "@")
	s := step{method: name, as: as}
	if text, ok := strings.CutPrefix(rest+" ", "hex "); ok { // an empty message ends with the blank
		raw, err := hex.DecodeString(strings.TrimSpace(text))
		s.raw = append([]byte{}, raw...)
		return s, err
	}
	m, ok := methods[name]
	switch {
	case ok:
		s.msg = m.request()
	case name == watchCreate || name == watchAlone || name == watchMay:
		s.msg = &pb.WatchCreateRequest{}
	case name == watchCancel:
		s.msg = &pb.WatchCancelRequest{}
	case name == watchSync || name == restart:
		return s, nil
	default:
		return s, fmt.Errorf("no method %q", name)
	}
	return s, prototext.Unmarshal([]byte(rest), s.msg)
}

// read takes a history from a file, one step per line; lines that begin with # say nothing.
func read(path string) ([]step, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var steps []step
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// rawCodec sends and receives bytes as they are, under protobuf's name.
type rawCodec struct{}

func (rawCodec) Name() string                  { return "proto" }
func (rawCodec) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (rawCodec) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte{}, data...)
	return nil
}

// answer is what one server said to one step.
type answer struct {
	responses []proto.Message
	code      string // of the status, or broken
	text      string // of the status
}

// broken is the code of an answer that did not come, or that is none; on upstream's side it is a fault of this test.
const broken = "broken"
