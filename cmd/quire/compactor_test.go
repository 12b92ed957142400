package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// fakeStore has a revision that grows by one per second.
type fakeStore struct {
	start  time.Time
	leader bool
	fail   int // this many compactions fail
	log    []int64
}

func (f *fakeStore) compactor(t *testing.T, mode, keep string) *compactor {
	t.Helper()
	k, err := parseRetention(mode, keep)
	if err != nil {
		t.Fatal(err)
	}
	f.start, f.leader = time.Now(), true
	return &compactor{
		keep:     k,
		revision: func() int64 { return 1 + int64(time.Since(f.start)/time.Second) },
		leads:    func() bool { return f.leader },
		compact: func(_ context.Context, rev int64) error {
			if f.fail > 0 {
				f.fail--
				return errors.New("no")
			}
			f.log = append(f.log, rev)
			return nil
		},
		log: zap.NewNop(),
	}
}

func TestAutoCompaction(t *testing.T) {
	for _, tc := range []struct {
		name, mode, keep string
		run              time.Duration
		setup            func(*fakeStore)
		want             []int64
	}{
		{name: "off", mode: "periodic", keep: "0", run: 10 * time.Hour},
		{name: "ten minutes", mode: "periodic", keep: "10m", run: 31 * time.Minute, want: []int64{1, 541, 1141}},
		{name: "hours without unit", mode: "periodic", keep: "2", run: 4*time.Hour + time.Minute,
			want: []int64{1, 3241, 6841}},
		{name: "failure is tried at the next sample", mode: "periodic", keep: "10m", run: 13 * time.Minute,
			setup: func(f *fakeStore) { f.fail = 2 }, want: []int64{61}},
		{name: "revisions", mode: "revision", keep: "1000", run: 26 * time.Minute, want: []int64{201, 501}},
		{name: "not by a follower", mode: "periodic", keep: "10m", run: time.Hour,
			setup: func(f *fakeStore) { f.leader = false }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeStore{}
				c := f.compactor(t, tc.mode, tc.keep)
				if tc.setup != nil {
					tc.setup(f)
				}
				ctx, cancel := context.WithTimeout(t.Context(), tc.run)
				defer cancel()
				c.run(ctx)
				if !slices.Equal(f.log, tc.want) {
					t.Errorf("compacted to %v, want %v", f.log, tc.want)
				}
			})
		})
	}
}
