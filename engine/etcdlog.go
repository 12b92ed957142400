package engine

import (
	"encoding/binary"
	"fmt"

	"quire/engine/auth"
	"quire/engine/etcdfile"
)

// opOfKind is the operation for each kind of request in etcd's log whose body is
// the operation's.
var opOfKind = map[etcdfile.RequestKind]OpKind{
	etcdfile.KindPut:                      OpPut,
	etcdfile.KindDeleteRange:              OpDeleteRange,
	etcdfile.KindTxn:                      OpTxn,
	etcdfile.KindCompaction:               OpCompact,
	etcdfile.KindLeaseGrant:               OpLeaseGrant,
	etcdfile.KindLeaseRevoke:              OpLeaseRevoke,
	etcdfile.KindLeaseCheckpoint:          OpLeaseCheckpoint,
	etcdfile.KindAlarm:                    OpAlarm,
	etcdfile.KindAuthEnable:               OpAuthEnable,
	etcdfile.KindAuthDisable:              OpAuthDisable,
	etcdfile.KindAuthUserAdd:              OpUserAdd,
	etcdfile.KindAuthUserDelete:           OpUserDelete,
	etcdfile.KindAuthUserChangePassword:   OpUserChangePassword,
	etcdfile.KindAuthUserGrantRole:        OpUserGrantRole,
	etcdfile.KindAuthUserRevokeRole:       OpUserRevokeRole,
	etcdfile.KindAuthRoleAdd:              OpRoleAdd,
	etcdfile.KindAuthRoleDelete:           OpRoleDelete,
	etcdfile.KindAuthRoleGrantPermission:  OpRoleGrant,
	etcdfile.KindAuthRoleRevokePermission: OpRoleRevoke,
}

// readOnly are the kinds of requests that change nothing here; a token that was
// handed out ends with the process that did it, and a member publishes its name
// and URLs (version 2) at each start.
var readOnly = map[etcdfile.RequestKind]bool{
	etcdfile.KindNone: true, etcdfile.KindV2: true, etcdfile.KindRange: true, etcdfile.KindAuthenticate: true, etcdfile.KindAuthStatus: true,
	etcdfile.KindAuthUserGet: true, etcdfile.KindAuthUserList: true, etcdfile.KindAuthRoleGet: true, etcdfile.KindAuthRoleList: true,
	etcdfile.KindDowngradeVersionTest: true,
}

// ApplyEtcd applies an entry of an etcd member's log. Changes of the membership
// are applied only with members set; an import that gives the cluster new
// members leaves them out.
func (e *Engine) ApplyEtcd(entry *etcdfile.Entry, members bool) error {
	switch entry.Type {
	case etcdfile.EntryNormal:
		op, err := etcdOp(entry.Data, members)
		if err != nil {
			return fmt.Errorf("entry %d: %w", entry.Index, err)
		}
		var data []byte
		if op != nil {
			data = append(binary.AppendUvarint(nil, uint64(len(op))), op...)
		}
		e.Apply(entry.Index, entry.Term, data, nil)
	case etcdfile.EntryConfChange:
		c, err := etcdfile.ParseConfChange(entry.Data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", entry.Index, err)
		}
		if !members {
			return nil
		}
		if c.Promote {
			c.Member = nil
		}
		cc, err := EncodeConfChange(ConfChange{Kind: c.Kind, Node: c.Node, Member: c.Member})
		if err != nil {
			return fmt.Errorf("entry %d: %w", entry.Index, err)
		}
		e.ApplyConfChange(entry.Index, entry.Term, cc, nil)
	default:
		return fmt.Errorf("entry %d has type %d, which etcd never writes", entry.Index, entry.Type)
	}
	return e.ap.broken
}

// etcdOp translates the data of an entry; nil if it changes nothing.
func etcdOp(data []byte, members bool) (op []byte, err error) {
	r, err := etcdfile.ParseRequest(data)
	if err != nil || readOnly[r.Kind] {
		return nil, err
	}
	if r.User != "" {
		op = AppendAs(op, auth.Identity{User: r.User, Revision: r.AuthRevision})
	}
	if kind, ok := opOfKind[r.Kind]; ok {
		return AppendOp(op, kind, r.Body), nil
	}
	switch r.Kind {
	case etcdfile.KindClusterVersionSet:
		v, err := etcdfile.ParseClusterVersion(r.Body)
		return AppendOp(nil, OpClusterVersion, []byte(v)), err
	case etcdfile.KindDowngradeInfoSet:
		d, err := etcdfile.ParseDowngrade(r.Body)
		if !d.Enabled {
			d.TargetVersion = ""
		}
		return AppendOp(nil, OpDowngrade, []byte(d.TargetVersion)), err
	case etcdfile.KindClusterMemberAttrSet:
		m, err := etcdfile.ParseMemberAttributes(r.Body)
		if err != nil || !members {
			return nil, err
		}
		body, err := m.MarshalVT()
		return AppendOp(nil, OpMemberAttr, body), err
	}
	return nil, fmt.Errorf("a request of kind %d, which this program does not know; have the etcd that wrote it stop in good order, so that its database has everything", r.Kind)
}
