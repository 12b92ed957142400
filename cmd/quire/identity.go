package main

import (
	"crypto/sha1"
	"encoding/binary"
	"slices"
	"strings"
)

// memberID is etcd's: the first eight bytes of the SHA-1 over the sorted peer
// URLs, joined without anything between them, and the cluster token.
func memberID(peerURLs []string, token string) uint64 {
	urls := slices.Clone(peerURLs)
	slices.Sort(urls)
	sum := sha1.Sum([]byte(strings.Join(urls, "") + token))
	return binary.BigEndian.Uint64(sum[:8])
}

// clusterID is etcd's: the first eight bytes of the SHA-1 over the sorted
// member IDs, each as eight bytes in big endian.
func clusterID(members []uint64) uint64 {
	ids := slices.Clone(members)
	slices.Sort(ids)
	var b []byte
	for _, id := range ids {
		b = binary.BigEndian.AppendUint64(b, id)
	}
	sum := sha1.Sum(b)
	return binary.BigEndian.Uint64(sum[:8])
}
