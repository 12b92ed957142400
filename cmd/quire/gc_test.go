package main

import "testing"

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 3200, 8 << 20: 400, 32 << 20: 100, 160 << 20: 20, 10 << 30: 20} {
		if got := gcPercent(live); got != want {
			t.Errorf("%d live bytes: %d %%, want %d %%", live, got, want)
		}
	}
}
