// Package pagestore keeps opaque records in append-only segment files.
package pagestore
