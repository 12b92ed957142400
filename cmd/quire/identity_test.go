package main

import "testing"

// The pairs were read from etcd 3.7.1 started with these flags.
func TestIdentity(t *testing.T) {
	for _, tc := range []struct {
		name, cluster, token string
		member, clusterID    uint64
	}{
		{"default", "default=http://127.0.0.1:23801", "etcd-cluster", 0xbdae9bbc11dd390d, 0xd1cfaf999eb97a2a},
		{"default", "default=http://localhost:2380", "etcd-cluster", 0x8e9e05c52164694d, 0xcdf818194e3a8c32},
		{"a", "a=http://127.0.0.1:23801,b=http://127.0.0.1:23802,c=http://127.0.0.1:23803", "tok", 0x4036b1db24775ea0, 0x64d937c925e41b58},
		{"x", "x=http://127.0.0.1:23801,x=http://10.0.0.9:99", "etcd-cluster", 0x3e4a67be36f3da53, 0xcd14200245950d23},
		{"m", "m=http://127.0.0.1:23801", "", 0x3122ec752e8571b3, 0xcfe6c11bb2fc6241},
	} {
		cluster, err := parseCluster(tc.cluster)
		if err != nil {
			t.Fatal(err)
		}
		if id := foundersOf(cluster, tc.name, tc.token); id.member != tc.member || id.cluster != tc.clusterID || len(id.members) != len(cluster) {
			t.Errorf("%s %s %s: member %x cluster %x, want %x %x", tc.name, tc.cluster, tc.token, id.member, id.cluster, tc.member, tc.clusterID)
		}
	}
}
