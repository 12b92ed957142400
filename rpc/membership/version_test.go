package membership

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"context"

	pb "quire/api/etcdserverpb"
)

func TestDecide(t *testing.T) {
	bad := errInvalidDowngradeTarget
	for _, tc := range []struct {
		cluster, lowest, target, want string
		err                           error
	}{
		{"", "3.7.1", "", "3.7.0", nil},
		{"3.7.0", "3.7.1", "", "", nil},
		{"3.6.0", "3.7.1", "", "3.7.0", nil},
		{"3.6.0", "", "", "", nil},
		{"3.7.0", "3.6.9", "", "", nil},
		{"3.7.0", "4.0.0", "", "", nil},
		{"3.7.0", "3.7.1", "3.6.0", "3.6.0", nil},
		{"3.6.0", "3.7.1", "3.6.0", "", nil},
		{"3.7.0", "3.7.1", "3.5.0", "", bad},
		{"3.7.0", "3.6.4", "3.6.0", "", bad},
		{"3.7.0", "", "3.6.0", "", nil},
		{"3.7.0", "3.7.1", "rubbish", "", bad},
	} {
		got, err := decide(tc.cluster, tc.lowest, tc.target)
		if got != tc.want || !errors.Is(err, tc.err) {
			t.Errorf("%+v: %q, %v", tc, got, err)
		}
	}
}

func TestDowngrade(t *testing.T) {
	s, c := service("a")
	ask := func(action pb.DowngradeRequest_DowngradeAction, v, want string, wantErr error) {
		t.Helper()
		got, err := s.Downgrade(t.Context(), &pb.DowngradeRequest{Action: action, Version: v})
		if !errors.Is(err, wantErr) || err == nil && got != want {
			t.Errorf("%v %q: %q, %v, want %q, %v", action, v, got, err, want, wantErr)
		}
	}
	const validate, enable, cancel = pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE, pb.DowngradeRequest_CANCEL
	ask(validate, "3.6", "3.7", nil)
	ask(validate, "3.6.0", "3.7", nil)
	ask(validate, "3.6.17", "3.7", nil)
	ask(validate, "3.5.0", "", ErrDowngradeTarget)
	ask(validate, "3.7.0", "", ErrDowngradeTarget)
	for _, v := range []string{"", "3", "three", "3.6.x", "v3.6.0", "3.6.0.0"} {
		ask(validate, v, "", ErrVersionFormat)
		ask(enable, v, "", ErrVersionFormat)
	}
	ask(cancel, "", "3.7", nil) // there is none, and etcd does not say so
	ask(enable, "3.5", "", ErrDowngradeTarget)
	if len(c.proposed) > 0 {
		t.Errorf("proposed %v", c.proposed)
	}
	ask(enable, "3.6", "3.7", nil)
	if c.downgrade != "3.6.0" {
		t.Errorf("downgrade to %q", c.downgrade)
	}
	ask(enable, "3.6", "", ErrDowngradeInProcess)
	ask(validate, "3.6", "", ErrDowngradeInProcess)
	ask(cancel, "", "3.7", nil)
	if c.downgrade != "" {
		t.Errorf("downgrade to %q", c.downgrade)
	}
	ask(9, "3.6", "", ErrUnknownMethod)
	c.readErr = errors.New("no quorum")
	ask(validate, "3.6", "", c.readErr)
	ask(enable, "3.6", "", c.readErr)
	ask(cancel, "", "3.7", nil)
	c.readErr, c.version = nil, ""
	ask(validate, "3.6", "", ErrNoClusterVersion)
}

// TestWatch follows the version of a cluster over a downgrade that is begun and
// called off.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, c := service("a")
		s.cfg.DowngradeCheck = 5 * time.Second
		c.version = "3.6.0"
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go s.Watch(ctx)
		await := func(d time.Duration, want ...string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if !slices.Equal(c.proposed, want) {
				t.Errorf("proposed %q, want %q", c.proposed, want)
			}
			c.proposed = nil
		}
		set := func(leader bool, version, downgrade string) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.leader, c.version, c.downgrade = leader, version, downgrade
		}
		await(watchInterval, "11 3.7.0")
		await(time.Minute)
		set(true, "3.7.0", "3.6.0")
		await(time.Minute, "11 3.6.0") // and it stays under way: this is no 3.6
		set(true, "3.6.0", "")
		await(time.Minute, "11 3.7.0")
		set(false, "3.7.0", "3.6.0")
		await(time.Minute)
		cancel()
		set(true, "3.6.0", "3.6.0")
		cfg := s.cfg
		cfg.ServerVersion = "3.6.2"
		ctx, cancel = context.WithCancel(t.Context())
		defer cancel()
		go New(cfg).Watch(ctx)
		await(time.Minute, "32 ")
	})
}

// TestUnknownMember does not move the version while that of a member is unknown.
func TestUnknownMember(t *testing.T) {
	s, c := service("a", "-")
	c.version = "3.6.0"
	s.moveVersion(t.Context())
	if c.version != "3.6.0" {
		t.Errorf("moved to %s", c.version)
	}
}
