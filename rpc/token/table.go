package token

import (
	"context"
	"crypto/rand"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"quire/engine/auth"
)

const (
	// MaxTokens bounds a Table: some 20 MB. One log-in costs a bcrypt, so that
	// many within a TTL are far beyond honest use.
	MaxTokens = 1 << 17

	defaultTTL = 5 * time.Minute
	// awaitMax and awaiters bound how long, and for how many calls at once, an
	// unknown token is given the time to arrive here through the log.
	awaitMax   = time.Second
	awaitStep  = 2 * time.Millisecond
	awaiters   = 64
	prefixSize = 16
)

// letters of a token's beginning. 52 of them, 16 times, are 91 bits.
const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

// Prefix returns the random beginning of a simple token.
func Prefix() string {
	var b, random [prefixSize]byte
	for n := 0; n < len(b); {
		_, _ = rand.Read(random[:]) // never fails
		for _, r := range random {
			// 208 is 4·52: what is above would favour the first letters.
			if r < 208 && n < len(b) {
				b[n] = letters[r%52]
				n++
			}
		}
	}
	return string(b[:])
}

// Table knows the simple tokens that are valid.
type Table struct {
	ttl    time.Duration
	now    func() time.Duration // since any fixed moment
	behind func(index uint64) bool
	waits  chan struct{}

	mu struct {
		sync.RWMutex
		// from is the first log index whose tokens count; those before it
		// belong to an earlier life of the process.
		from    uint64
		tokens  map[string]*entry
		holders map[string]*holder
		// ring has every entry in the order in which they are looked at for
		// expiry: each new token looks at some of the oldest.
		ring []*entry
		hand int
	}
}

// entry is one token.
type entry struct {
	token   string
	holder  *holder
	epoch   uint64       // of the holder when it was handed out
	expires atomic.Int64 // by Table.now
}

// holder is a user with tokens. A new epoch voids all of them at once, so that
// the apply goroutine does not walk through them.
type holder struct {
	name   string
	epoch  uint64
	tokens int
}

// NewTable returns a table that notes nothing before From.
func NewTable(ttl time.Duration, behind func(index uint64) bool) *Table {
	if ttl <= 0 {
		ttl = defaultTTL
	}
	start := time.Now()
	t := &Table{ttl: ttl, behind: behind, waits: make(chan struct{}, awaiters)}
	t.now = func() time.Duration { return time.Since(start) }
	t.mu.from = math.MaxUint64
	t.clearLocked()
	return t
}

func (t *Table) clearLocked() {
	t.mu.tokens, t.mu.holders = map[string]*entry{}, map[string]*holder{}
	t.mu.ring, t.mu.hand = nil, 0
}

// From makes the table note tokens from a log index on. What is applied before
// is the replay of a log at start: its tokens may have been over long ago.
func (t *Table) From(index uint64) {
	t.mu.Lock()
	t.mu.from = index
	t.mu.Unlock()
}

// Logged implements Provider.
func (t *Table) Logged() bool { return true }

// Sign implements Provider; it is never asked for.
func (t *Table) Sign(string, uint64) (string, error) { return "", auth.ErrAuthFailed }

// Issued implements Provider.
func (t *Table) Issued(index uint64, user, token string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if index < t.mu.from || t.mu.tokens[token] != nil {
		return
	}
	t.sweepLocked()
	h := t.mu.holders[user]
	if h == nil {
		h = &holder{name: user}
		t.mu.holders[user] = h
	}
	e := &entry{token: token, holder: h, epoch: h.epoch}
	e.expires.Store(int64(t.now() + t.ttl))
	h.tokens++
	t.mu.tokens[token] = e
	t.mu.ring = append(t.mu.ring, e)
}

// sweepLocked looks at a few of the oldest tokens and forgets those that are
// void; of a full table it forgets one in any case.
func (t *Table) sweepLocked() {
	const looks = 4
	now := int64(t.now())
	for i := 0; i < looks && len(t.mu.ring) > 0; i++ {
		if t.mu.hand >= len(t.mu.ring) {
			t.mu.hand = 0
		}
		e := t.mu.ring[t.mu.hand]
		if e.valid(now) && len(t.mu.ring) < MaxTokens {
			t.mu.hand++
			continue
		}
		t.forgetLocked(t.mu.hand)
	}
}

// forgetLocked removes the entry at a place of the ring.
func (t *Table) forgetLocked(at int) {
	e := t.mu.ring[at]
	last := len(t.mu.ring) - 1
	t.mu.ring[at] = t.mu.ring[last]
	t.mu.ring[last] = nil
	t.mu.ring = t.mu.ring[:last]
	delete(t.mu.tokens, e.token)
	if e.holder.tokens--; e.holder.tokens == 0 {
		delete(t.mu.holders, e.holder.name)
	}
}

func (e *entry) valid(now int64) bool { return e.epoch == e.holder.epoch && now < e.expires.Load() }

// Revoked implements Provider.
func (t *Table) Revoked(user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if user == "" {
		t.clearLocked()
	} else if h := t.mu.holders[user]; h != nil {
		h.epoch++
	}
}

// Identify implements Provider.
func (t *Table) Identify(ctx context.Context, token string, revision uint64) (auth.Identity, bool) {
	user, ok := t.find(token)
	if !ok && t.behind != nil && t.await(ctx, token) {
		user, ok = t.find(token)
	}
	if !ok {
		return auth.Identity{}, false
	}
	return auth.Identity{User: user, Revision: revision, Known: true}, true
}

// find returns the user of a valid token and renews its deadline.
func (t *Table) find(token string) (user string, ok bool) {
	now := int64(t.now())
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.mu.tokens[token]
	if e == nil || !e.valid(now) {
		return "", false
	}
	// A store for every use would take the cache line from the other cores.
	if fresh := now + int64(t.ttl); fresh-e.expires.Load() > int64(t.ttl)/64 {
		e.expires.Store(fresh)
	}
	return e.holder.name, true
}

// await waits until the operation that handed out a token has been applied here,
// as far as the token tells and the bounds permit. It is false if there was
// nothing to wait for.
func (t *Table) await(ctx context.Context, token string) bool {
	index, ok := indexOf(token)
	if !ok || !t.behind(index) {
		return false
	}
	select {
	case t.waits <- struct{}{}:
		defer func() { <-t.waits }()
	default:
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, awaitMax)
	defer cancel()
	tick := time.NewTicker(awaitStep)
	defer tick.Stop()
	for t.behind(index) {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
	return true
}

// indexOf returns the log index that a simple token names.
func indexOf(token string) (uint64, bool) {
	_, digits, ok := strings.Cut(token, ".")
	if !ok {
		return 0, false
	}
	index, err := strconv.ParseUint(digits, 10, 64)
	return index, err == nil
}
