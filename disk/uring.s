//go:build giouring

// This file lets uring.go declare a function without a body.
