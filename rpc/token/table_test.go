package token

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// newTestTable has a clock that only the test moves.
func newTestTable(ttl time.Duration) (*Table, *atomic.Int64) {
	clock := new(atomic.Int64)
	t := NewTable(ttl, nil)
	t.now = func() time.Duration { return time.Duration(clock.Load()) }
	t.From(0)
	return t, clock
}

func (t *Table) owner(token string) string {
	id, ok := t.Identify(context.Background(), token, 7)
	if !ok {
		return ""
	}
	if !id.Known || id.Revision != 7 {
		panic(fmt.Sprintf("identity %+v", id))
	}
	return id.User
}

func TestTokenLivesFromUseToUse(t *testing.T) {
	table, clock := newTestTable(10 * time.Second)
	table.Issued(5, "ann", "a.5")
	for range 5 {
		clock.Add(int64(9 * time.Second))
		if got := table.owner("a.5"); got != "ann" {
			t.Fatalf("used in time: %q", got)
		}
	}
	clock.Add(int64(11 * time.Second))
	if got := table.owner("a.5"); got != "" {
		t.Fatalf("used too late: %q", got)
	}
	if got := table.owner("a.5"); got != "" {
		t.Fatalf("a late use renewed the token: %q", got)
	}
}

func TestRevoked(t *testing.T) {
	table, _ := newTestTable(0)
	table.Issued(5, "ann", "a.5")
	table.Issued(6, "ann", "b.6")
	table.Issued(7, "bob", "c.7")
	table.Revoked("nobody")
	table.Revoked("ann")
	table.Issued(8, "ann", "d.8")
	for token, want := range map[string]string{"a.5": "", "b.6": "", "c.7": "bob", "d.8": "ann", "": "", "x": "", "a.b.c": ""} {
		if got := table.owner(token); got != want {
			t.Errorf("%q is %q's, want %q", token, got, want)
		}
	}
	table.Revoked("")
	for _, token := range []string{"c.7", "d.8"} {
		if got := table.owner(token); got != "" {
			t.Errorf("%q is still %q's", token, got)
		}
	}
}

func TestReplayedTokensDoNotCount(t *testing.T) {
	table := NewTable(0, nil)
	table.Issued(4, "ann", "a.4")
	table.From(5)
	table.Issued(4, "ann", "b.4")
	table.Issued(5, "ann", "c.5")
	for token, want := range map[string]string{"a.4": "", "b.4": "", "c.5": "ann"} {
		if got := table.owner(token); got != want {
			t.Errorf("%q is %q's, want %q", token, got, want)
		}
	}
}

// TestTableModel compares random histories with a map of deadlines.
func TestTableModel(t *testing.T) {
	type held struct {
		user string
		ends int64
	}
	for seed := uint64(1); seed <= 200; seed++ {
		rnd := rand.New(rand.NewPCG(seed, 1))
		table, clock := newTestTable(64 * time.Second)
		model := map[string]held{}
		for i := range 300 {
			user := fmt.Sprintf("u%d", rnd.IntN(4))
			switch n := rnd.IntN(20); {
			case n < 8:
				token := fmt.Sprintf("t.%d", i)
				table.Issued(uint64(i), user, token)
				model[token] = held{user, clock.Load() + int64(64*time.Second)}
			case n < 17:
				token := fmt.Sprintf("t.%d", rnd.IntN(i+1))
				want := model[token]
				if want.ends <= clock.Load() {
					want.user = ""
				}
				if got := table.owner(token); got != want.user {
					t.Fatalf("seed %d, step %d: %q is %q's, want %q", seed, i, token, got, want.user)
				}
				// A renewal may be left out while it gains less than a 64th.
				if fresh := clock.Load() + int64(64*time.Second); want.user != "" && fresh-want.ends > int64(time.Second) {
					model[token] = held{want.user, fresh}
				}
			case n < 18:
				table.Revoked(user)
				for token, h := range model {
					if h.user == user {
						delete(model, token)
					}
				}
			default:
				clock.Add(int64(rnd.IntN(40)) * int64(time.Second))
			}
			table.check(t)
		}
	}
}

// check verifies that ring, map and holders agree.
func (t *Table) check(tb testing.TB) {
	tb.Helper()
	if len(t.mu.ring) != len(t.mu.tokens) {
		tb.Fatalf("%d tokens in the ring, %d in the map", len(t.mu.ring), len(t.mu.tokens))
	}
	count := map[*holder]int{}
	for _, e := range t.mu.ring {
		if t.mu.tokens[e.token] != e {
			tb.Fatalf("%q is in the ring alone", e.token)
		}
		count[e.holder]++
	}
	for name, h := range t.mu.holders {
		if h.name != name || h.tokens != count[h] || h.tokens == 0 {
			tb.Fatalf("holder %q has %d tokens, counts %d", name, count[h], h.tokens)
		}
		delete(count, h)
	}
	if len(count) != 0 {
		tb.Fatal("tokens of a forgotten holder")
	}
}

func TestTableIsBounded(t *testing.T) {
	table, clock := newTestTable(time.Hour)
	for i := range MaxTokens + 100 {
		table.Issued(uint64(i), "u", fmt.Sprintf("t.%d", i))
	}
	if n := len(table.mu.tokens); n > MaxTokens {
		t.Errorf("%d tokens, bound %d", n, MaxTokens)
	}
	if got := table.owner(fmt.Sprintf("t.%d", MaxTokens+99)); got != "u" {
		t.Error("the newest token is gone")
	}
	// When time has passed, new tokens make room of the old ones.
	clock.Add(int64(2 * time.Hour))
	for i := range 1000 {
		table.Issued(1, "v", fmt.Sprintf("v.%d", i))
	}
	if n := len(table.mu.tokens); n > MaxTokens-2000 {
		t.Errorf("%d tokens after expiry", n)
	}
	table.check(t)
}

// A token may be shown here before the operation that gave it out has arrived.
func TestTokenIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var applied atomic.Uint64
		table := NewTable(0, func(index uint64) bool { return index > applied.Load() })
		table.From(0)
		go func() {
			time.Sleep(300 * time.Millisecond)
			table.Issued(9, "ann", "a.9")
			applied.Store(9)
		}()
		if got := table.owner("a.9"); got != "ann" {
			t.Errorf("awaited token is %q's", got)
		}
		began := time.Now()
		if got := table.owner("forged.18446744073709551615"); got != "" || time.Since(began) > 2*awaitMax {
			t.Errorf("forged token is %q's after %v", got, time.Since(began))
		}
		began = time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		if _, ok := table.Identify(ctx, "forged.99", 1); ok || time.Since(began) > 200*time.Millisecond {
			t.Errorf("the call's own end does not count: %v", time.Since(began))
		}
		// However many come, few wait.
		began = time.Now()
		var wg sync.WaitGroup
		for range 50 * awaiters {
			wg.Go(func() { table.owner("forged.99") })
		}
		wg.Wait()
		if took := time.Since(began); took > 2*awaitMax {
			t.Errorf("a flood took %v", took)
		}
	})
}

func TestTableConcurrent(t *testing.T) {
	table, _ := newTestTable(time.Millisecond)
	start := time.Now()
	table.now = func() time.Duration { return time.Since(start) }
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 3000 {
				token := fmt.Sprintf("t%d.%d", g, i)
				table.Issued(1, "u", token)
				if got := table.owner(token); got != "" && got != "u" {
					t.Errorf("%q is %q's", token, got)
				}
				if i%500 == 0 {
					table.Revoked("u")
				}
			}
		})
	}
	wg.Wait()
	table.check(t)
}

func TestPrefix(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		p := Prefix()
		if len(p) != 16 || strings.Trim(p, letters) != "" || seen[p] {
			t.Fatalf("prefix %q", p)
		}
		seen[p] = true
	}
}

func BenchmarkIdentify(b *testing.B) {
	table := NewTable(0, nil)
	table.From(0)
	table.Issued(1, "u", "abcdefghijklmnop.1")
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := table.Identify(ctx, "abcdefghijklmnop.1", 3); !ok {
			b.Fatal("unknown")
		}
	}
}
