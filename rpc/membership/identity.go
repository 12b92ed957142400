package membership

import (
	"crypto/sha1"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ID is the identity that etcd gives a member: the first eight bytes of the SHA-1
// over the sorted peer URLs, joined without anything between them, the cluster
// token, and the second at which a member was added to a running cluster. A member
// of the first hour has the zero time.
func ID(peerURLs []string, token string, added time.Time) uint64 {
	text := strings.Join(slices.Sorted(slices.Values(peerURLs)), "") + token
	if !added.IsZero() {
		text += strconv.FormatInt(added.Unix(), 10)
	}
	sum := sha1.Sum([]byte(text))
	return binary.BigEndian.Uint64(sum[:8])
}

// ClusterID is etcd's: the first eight bytes of the SHA-1 over the sorted IDs of
// the first members, each as eight bytes in big endian.
func ClusterID(members []uint64) uint64 {
	var b []byte
	for _, id := range slices.Sorted(slices.Values(members)) {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	sum := sha1.Sum(b)
	return binary.BigEndian.Uint64(sum[:8])
}
