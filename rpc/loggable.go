package rpc

import (
	"fmt"
	"strconv"
	"strings"

	pb "quire/api/etcdserverpb"
)

// loggablePut shows a put without its value.
func loggablePut(r *pb.PutRequest) string {
	var b strings.Builder
	fmt.Fprintf(&b, "key:%s value_size:%d", strconv.Quote(string(r.Key)), len(r.Value))
	if r.Lease != 0 {
		fmt.Fprintf(&b, " lease:%d", r.Lease)
	}
	for _, f := range []struct {
		name string
		set  bool
	}{{"prev_kv", r.PrevKv}, {"ignore_value", r.IgnoreValue}, {"ignore_lease", r.IgnoreLease}} {
		if f.set {
			b.WriteString(" " + f.name + ":true")
		}
	}
	return b.String()
}

// loggableTxn shows a transaction without the values that it compares or puts.
func loggableTxn(r *pb.TxnRequest) string {
	compares := make([]string, len(r.Compare))
	for i, c := range r.Compare {
		compares[i] = loggableCompare(c)
	}
	return fmt.Sprintf("compare:<%s> success:<%s> failure:<%s>",
		strings.Join(compares, " "), loggableOps(r.Success), loggableOps(r.Failure))
}

func loggableOps(ops []*pb.RequestOp) string {
	parts := make([]string, len(ops))
	for i, op := range ops {
		switch u := op.Request.(type) {
		case *pb.RequestOp_RequestPut:
			parts[i] = "request_put:<" + loggablePut(u.RequestPut) + ">"
		case *pb.RequestOp_RequestTxn:
			parts[i] = "request_txn:<" + loggableTxn(u.RequestTxn) + ">"
		default:
			parts[i] = text(op)
		}
	}
	return strings.Join(parts, " ")
}

func loggableCompare(c *pb.Compare) string {
	v, ok := c.TargetUnion.(*pb.Compare_Value)
	if !ok {
		return text(c)
	}
	s := fmt.Sprintf("result:%s target:%s key:%s value_size:%d", c.Result, c.Target, strconv.Quote(string(c.Key)), len(v.Value))
	if len(c.RangeEnd) > 0 {
		s += " range_end:" + strconv.Quote(string(c.RangeEnd))
	}
	return s
}

// alarmText is how etcd shows an alarm among the errors of Status.
func alarmText(a *pb.AlarmMember) string {
	var parts []string
	if a.MemberID != 0 {
		parts = append(parts, fmt.Sprintf("memberID:%d", a.MemberID))
	}
	if a.Alarm != pb.AlarmType_NONE {
		parts = append(parts, "alarm:"+a.Alarm.String())
	}
	return strings.Join(parts, " ")
}
