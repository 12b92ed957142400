package rpc

import (
	"context"
	"sync/atomic"
	"unicode/utf8"

	"google.golang.org/grpc/metadata"
)

// versionStats tells how a method's calls divide among the versions of clients,
// which say it in metadata. Looking there costs a copy, so after the first calls
// only one in versionSample is asked, and those since the last one are counted with
// it: all calls are counted, and with clients of one version rightly.
type versionStats struct {
	counted   atomic.Uint64 // of methodStats.started
	last      atomic.Pointer[string]
	byVersion tallies
}

// versionSample is a power of two.
const versionSample = 64

const unknownVersion = "unknown"

// versionOf returns what a client says of itself.
func versionOf(ctx context.Context) string {
	v := metadata.ValueFromIncomingContext(ctx, "client-api-version")
	if len(v) == 0 || len(v[0]) > 32 || !utf8.ValidString(v[0]) {
		return unknownVersion
	}
	return v[0]
}

// sample is called for the started-th call of a method.
func (v *versionStats) sample(ctx context.Context, started uint64) {
	if started <= versionSample || started%versionSample == 0 {
		v.count(versionOf(ctx), started)
	}
}

// count counts the calls up to the started-th with a version.
func (v *versionStats) count(version string, started uint64) {
	if old := v.last.Load(); old == nil || *old != version {
		v.last.Store(&version)
	}
	for {
		counted := v.counted.Load()
		if started <= counted {
			return
		}
		if v.counted.CompareAndSwap(counted, started) {
			v.byVersion.add(version, started-counted)
			return
		}
	}
}

// settle counts the calls since the last sample with its version.
func (v *versionStats) settle(started uint64) {
	if last := v.last.Load(); last != nil {
		v.count(*last, started)
	}
}
