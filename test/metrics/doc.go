// Package metrics compares /metrics of quire with upstream's, so that dashboards and alerts made for etcd work: the
// families with their types and labels, and, after the same small history of requests to both, which of them have moved.
package metrics
