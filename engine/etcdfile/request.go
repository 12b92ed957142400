package etcdfile

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	pb "quire/api/etcdserverpb"
)

// Request is an InternalRaftRequest: one operation of an entry.
type Request struct {
	Kind RequestKind
	// Body is the wire encoding of the request of that kind.
	Body []byte
	// User is who asked, and AuthRevision what it was checked against before;
	// empty without authentication.
	User         string
	AuthRevision uint64
}

// RequestKind is the number of the request's field in InternalRaftRequest.
type RequestKind int32

// The kinds; each names the message of the body.
const (
	KindNone                     RequestKind = 0
	KindV2                       RequestKind = 2 // of the API before version 3, see ParseRequest
	KindRange                    RequestKind = 3
	KindPut                      RequestKind = 4
	KindDeleteRange              RequestKind = 5
	KindTxn                      RequestKind = 6
	KindCompaction               RequestKind = 7
	KindLeaseGrant               RequestKind = 8
	KindLeaseRevoke              RequestKind = 9
	KindAlarm                    RequestKind = 10
	KindLeaseCheckpoint          RequestKind = 11
	KindAuthEnable               RequestKind = 1000
	KindAuthDisable              RequestKind = 1011
	KindAuthenticate             RequestKind = 1012
	KindAuthStatus               RequestKind = 1013
	KindAuthUserAdd              RequestKind = 1100
	KindAuthUserDelete           RequestKind = 1101
	KindAuthUserGet              RequestKind = 1102
	KindAuthUserChangePassword   RequestKind = 1103
	KindAuthUserGrantRole        RequestKind = 1104
	KindAuthUserRevokeRole       RequestKind = 1105
	KindAuthUserList             RequestKind = 1106
	KindAuthRoleList             RequestKind = 1107
	KindAuthRoleAdd              RequestKind = 1200
	KindAuthRoleDelete           RequestKind = 1201
	KindAuthRoleGet              RequestKind = 1202
	KindAuthRoleGrantPermission  RequestKind = 1203
	KindAuthRoleRevokePermission RequestKind = 1204
	KindClusterVersionSet        RequestKind = 1300 // see ParseClusterVersion
	KindClusterMemberAttrSet     RequestKind = 1301 // see ParseMemberAttributes
	KindDowngradeInfoSet         RequestKind = 1302 // see ParseDowngrade
	KindDowngradeVersionTest     RequestKind = 9900

	fieldRequestID     = 1
	fieldRequestHeader = 100
)

// ParseRequest reads the data of a normal entry. Empty data, a leader's first
// entry, is of kind none. etcd 3.5 and older write requests of API version 2,
// for names and URLs of members; they have a field 2, which nothing else has.
func ParseRequest(data []byte) (r Request, err error) {
	err = eachField(data, func(num protowire.Number, v uint64, p []byte) error {
		if r.Kind == KindV2 || RequestKind(num) == KindV2 {
			r = Request{Kind: KindV2}
			return nil
		}
		switch num {
		case fieldRequestID:
			return nil
		case fieldRequestHeader:
			return r.header(p)
		}
		if r.Kind != KindNone {
			return fmt.Errorf("a request of kinds %d and %d", r.Kind, num)
		}
		r.Kind, r.Body = RequestKind(num), p
		return nil
	})
	return r, err
}

func (r *Request) header(b []byte) error {
	return eachField(b, func(num protowire.Number, v uint64, p []byte) error {
		switch num {
		case 2:
			r.User = string(p)
		case 3:
			r.AuthRevision = v
		}
		return nil
	})
}

// ParseClusterVersion reads the body of KindClusterVersionSet.
func ParseClusterVersion(body []byte) (version string, err error) {
	err = eachField(body, func(num protowire.Number, _ uint64, p []byte) error {
		if num == 1 {
			version = string(p)
		}
		return nil
	})
	return version, err
}

// ParseMemberAttributes reads the body of KindClusterMemberAttrSet: the ID, name
// and client URLs of a member.
func ParseMemberAttributes(body []byte) (*pb.Member, error) {
	m := new(pb.Member)
	err := eachField(body, func(num protowire.Number, v uint64, p []byte) error {
		switch num {
		case 1:
			m.ID = v
		case 2:
			return eachField(p, func(num protowire.Number, _ uint64, p []byte) error {
				switch num {
				case 1:
					m.Name = string(p)
				case 2:
					m.ClientURLs = append(m.ClientURLs, string(p))
				}
				return nil
			})
		}
		return nil
	})
	return m, err
}

// ParseDowngrade reads the body of KindDowngradeInfoSet.
func ParseDowngrade(body []byte) (d Downgrade, err error) {
	err = eachField(body, func(num protowire.Number, v uint64, p []byte) error {
		switch num {
		case 1:
			d.Enabled = v != 0
		case 2:
			d.TargetVersion = string(p)
		}
		return nil
	})
	return d, err
}

// ConfChange is one change of the membership. Kind has raftpb's numbers: 0 add a
// voter, 1 remove, 2 update, 3 add a learner.
type ConfChange struct {
	Kind    uint64
	Node    uint64
	Member  *pb.Member // nil for a removal
	Promote bool       // with kind 0: the learner becomes a voter
}

// Adds tells whether the change brings a new member, if it is not refused.
func (c *ConfChange) Adds() bool { return (c.Kind == 0 || c.Kind == 3) && !c.Promote }

// Removes tells whether the change takes a member away, if it is not refused.
func (c *ConfChange) Removes() bool { return c.Kind == 1 }

// ParseConfChange reads the data of an EntryConfChange.
func ParseConfChange(data []byte) (c ConfChange, err error) {
	var context []byte
	err = eachField(data, func(num protowire.Number, v uint64, p []byte) error {
		switch num {
		case 2:
			c.Kind = v
		case 3:
			c.Node = v
		case 4:
			context = p
		}
		return nil
	})
	if err != nil || len(context) == 0 {
		return c, err
	}
	var m struct {
		memberJSON
		IsPromote bool `json:"isPromote"`
	}
	if err := json.Unmarshal(context, &m); err != nil {
		return c, err
	}
	c.Promote = m.IsPromote
	c.Member = &pb.Member{ID: m.ID, Name: m.Name, PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs, IsLearner: m.IsLearner}
	return c, nil
}
