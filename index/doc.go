// Package index is the in-memory directory of the store.
package index
