// Package raft is one consensus member. (Details follow.)
package raft
