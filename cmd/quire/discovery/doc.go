// Package discovery finds the members of a new cluster: through etcd's discovery
// service, version 3, which is keys in another etcd cluster, or through SRV records
// of a DNS domain.
//
// # The service
//
// Whoever wants a cluster writes its size to
//
//	/_etcd/registry/TOKEN/_config/size
//
// Each member writes itself, as NAME=URL,…, to
//
//	/_etcd/registry/TOKEN/members/ID
//
// and waits until as many are there as the size says. If there are more, those
// that came first count. The requests are plain Range and Put calls; a service
// that does not answer is asked again, more and more slowly, for ever.
//
// # Refuses to know
//
// What becomes of the list: IDs and the founding of the cluster are package
// main's.
package discovery
