// Package gateway drives the JSON API and the HTTP endpoints of a server as curl, a browser and scripts do, and compares
// every answer with upstream's: status, headers that clients look at, and body, byte for byte but for ids, times and the
// space that protobuf's JSON puts in or not.
package gateway
