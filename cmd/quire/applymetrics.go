package main

import (
	"math"
	"math/bits"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"quire/engine"
)

// applyMetrics shows how long operations took to apply, by kind. An entry holds
// many operations and is timed as a whole: each of its operations counts with
// the mean of the entry, so that counts and sums are right and no operation
// costs a look at the clock.
type applyMetrics struct {
	desc  *prometheus.Desc
	kinds [len(opNames)][2]applyTimes // by success
}

// opNames are etcd's names of what is applied; the others are not shown.
var opNames = [...]string{
	engine.OpPut: "Put", engine.OpDeleteRange: "DeleteRange", engine.OpTxn: "Txn", engine.OpCompact: "Compaction",
	engine.OpLeaseGrant: "LeaseGrant", engine.OpLeaseRevoke: "LeaseRevoke", engine.OpLeaseExpire: "LeaseRevoke",
	engine.OpLeaseCheckpoint: "LeaseCheckpoint", engine.OpAlarm: "Alarm",
	engine.OpMemberAttr: "ClusterMemberAttrSet", engine.OpClusterVersion: "ClusterVersionSet",
	engine.OpAuthEnable: "AuthEnable", engine.OpAuthDisable: "AuthDisable", engine.OpAuthenticate: "Authenticate",
	engine.OpUserAdd: "AuthUserAdd", engine.OpUserDelete: "AuthUserDelete", engine.OpUserChangePassword: "AuthUserChangePassword",
	engine.OpUserGrantRole: "AuthUserGrantRole", engine.OpUserRevokeRole: "AuthUserRevokeRole",
	engine.OpRoleAdd: "AuthRoleAdd", engine.OpRoleDelete: "AuthRoleDelete",
	engine.OpRoleGrant: "AuthRoleGrantPermission", engine.OpRoleRevoke: "AuthRoleRevokePermission",
}

// applyBuckets double from a tenth of a millisecond to 52 s, as in etcd.
const applyBuckets = 20

// applyTimes is written by the apply goroutine alone.
type applyTimes struct {
	buckets [applyBuckets + 1]atomic.Uint64
	nanos   atomic.Uint64
}

func newApplyMetrics(reg prometheus.Registerer) (*applyMetrics, error) {
	m := &applyMetrics{desc: prometheus.NewDesc("etcd_server_apply_duration_seconds",
		"Time to apply an operation: the mean of the log entry that it is part of.", []string{"version", "op", "success"}, nil)}
	return m, reg.Register(m)
}

// observe takes the time of the entry that e has applied last.
func (m *applyMetrics) observe(e *engine.Engine, took time.Duration) {
	total := uint32(0)
	e.EachApplied(func(_ engine.OpKind, _ bool, n uint32) { total += n })
	if total == 0 {
		return
	}
	mean := uint64(took) / uint64(total)
	i := applyBucket(time.Duration(mean))
	e.EachApplied(func(kind engine.OpKind, ok bool, n uint32) {
		if int(kind) >= len(m.kinds) {
			return
		}
		t := &m.kinds[kind][index(ok)]
		t.buckets[i].Add(uint64(n))
		t.nanos.Add(mean * uint64(n))
	})
}

func index(ok bool) int {
	if ok {
		return 1
	}
	return 0
}

// applyBucket returns the first bucket whose bound is not below d.
func applyBucket(d time.Duration) int {
	const unit = 100 * time.Microsecond
	return min(bits.Len64(uint64(max(d-1, 0))/uint64(unit)), applyBuckets)
}

// Describe implements prometheus.Collector.
func (m *applyMetrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.desc }

// Collect implements prometheus.Collector. Kinds with one name are shown as one.
func (m *applyMetrics) Collect(ch chan<- prometheus.Metric) {
	type sums struct {
		count  uint64
		nanos  uint64
		bounds map[float64]uint64
	}
	shown := map[[2]string]*sums{}
	for kind := range m.kinds {
		for ok := range m.kinds[kind] {
			t := &m.kinds[kind][ok]
			key := [2]string{opNames[kind], strconv.FormatBool(ok == 1)}
			s := shown[key]
			if s == nil {
				s = &sums{bounds: map[float64]uint64{}}
				shown[key] = s
			}
			count := uint64(0)
			for i := range t.buckets {
				count += t.buckets[i].Load()
				if i < applyBuckets {
					s.bounds[0.0001*math.Ldexp(1, i)] += count
				}
			}
			s.count += count
			s.nanos += t.nanos.Load()
		}
	}
	for key, s := range shown {
		if s.count > 0 && key[0] != "" {
			ch <- prometheus.MustNewConstHistogram(m.desc, s.count, time.Duration(s.nanos).Seconds(), s.bounds, "v3", key[0], key[1])
		}
	}
}
