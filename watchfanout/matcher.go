package watchfanout

import (
	"bytes"
	"slices"
)

// kind is how a range is matched.
type kind uint8

const (
	kindExact  kind = iota // one key
	kindPrefix             // every key that starts with key
	kindAll                // every key
	kindFrom               // key and everything after it
	kindRange              // any other [key, end)
)

// maxPrefixLengths bounds how many lookups one event costs: prefixes of further
// lengths are kept as intervals.
const maxPrefixLengths = 64

// hotGroup is from how many cursors on a group has a map by stream.
const hotGroup = 8

// span is a watched range; end counts for kindRange only.
type span struct {
	kind     kind
	key, end []byte
}

// spanOf classifies a create request's range by etcd's rules: no end is one
// key, an end of "\x00" is everything from key on. ok is false if it is empty.
func spanOf(key, end []byte) (sp span, ok bool) {
	switch {
	case len(end) == 0:
		return span{kind: kindExact, key: key}, true
	case len(end) == 1 && end[0] == 0:
		if len(key) == 0 || len(key) == 1 && key[0] == 0 {
			return span{kind: kindAll}, true
		}
		return span{kind: kindFrom, key: key}, true
	case bytes.Compare(key, end) >= 0:
		return span{}, false
	case len(end) == len(key)+1 && end[len(key)] == 0 && bytes.HasPrefix(end, key):
		return span{kind: kindExact, key: key}, true
	case isPrefixEnd(key, end):
		return span{kind: kindPrefix, key: key}, true
	}
	return span{kind: kindRange, key: key, end: end}, true
}

// isPrefixEnd says whether [key, end) is exactly the keys that start with key.
func isPrefixEnd(key, end []byte) bool {
	n := len(end)
	if n == 0 || n > len(key) || key[n-1] == 0xff || end[n-1] != key[n-1]+1 || !bytes.Equal(key[:n-1], end[:n-1]) {
		return false
	}
	for _, b := range key[n:] {
		if b != 0xff {
			return false
		}
	}
	return true
}

// group is the cursors of one matcher that watch the same range. It is owned
// by its matcher's lock.
type group struct {
	key, end string
	cursors  []*cursor
	touched  uint32 // 1 + position in the collector that is at work
	kind     kind
}

func (g *group) span() span {
	return span{kind: g.kind, key: []byte(g.key), end: []byte(g.end)}
}

type prefixLength struct {
	bytes  int
	groups map[string]*group
}

type hotKey struct {
	stream  *Stream
	variant variant
}

// matcher finds the groups whose range contains a key: exact keys in a map,
// prefixes in a map per length, an interval tree for the rest. The zero value
// is empty. It has no lock of its own.
type matcher struct {
	exact    map[string]*group
	prefixes []prefixLength // ascending length
	all      *group
	ranges   intervals
	hot      map[*group]map[hotKey]*cursor // groups of more than hotGroup cursors
	groups   int
}

// find returns the group of a range or nil.
func (m *matcher) find(sp span) *group {
	switch sp.kind {
	case kindExact:
		return m.exact[string(sp.key)]
	case kindAll:
		return m.all
	case kindPrefix:
		for i := range m.prefixes {
			if m.prefixes[i].bytes == len(sp.key) {
				if g := m.prefixes[i].groups[string(sp.key)]; g != nil {
					return g
				}
			}
		}
		if m.ranges.root == nil {
			return nil
		}
		end, unbounded := prefixEnd(sp.key)
		return m.ranges.find(interval{lo: string(sp.key), hi: end, unbounded: unbounded, prefix: true})
	}
	return m.ranges.find(intervalOf(sp.kind, string(sp.key), string(sp.end)))
}

// add returns the group of a range, made if need be.
func (m *matcher) add(sp span) *group {
	if g := m.find(sp); g != nil {
		return g
	}
	g := &group{kind: sp.kind, key: string(sp.key), end: string(sp.end)}
	m.insert(g)
	return g
}

func (m *matcher) insert(g *group) {
	m.groups++
	switch g.kind {
	case kindExact:
		if m.exact == nil {
			m.exact = map[string]*group{}
		}
		m.exact[g.key] = g
	case kindAll:
		m.all = g
	case kindPrefix:
		if !m.insertPrefix(g) {
			end, unbounded := prefixEnd([]byte(g.key))
			m.ranges.insert(interval{lo: g.key, hi: end, unbounded: unbounded, prefix: true}, g)
		}
	default:
		m.ranges.insert(intervalOf(g.kind, g.key, g.end), g)
	}
}

func (m *matcher) insertPrefix(g *group) bool {
	at, found := slices.BinarySearchFunc(m.prefixes, len(g.key), func(p prefixLength, n int) int { return p.bytes - n })
	if !found {
		if len(m.prefixes) == maxPrefixLengths {
			return false
		}
		m.prefixes = slices.Insert(m.prefixes, at, prefixLength{bytes: len(g.key), groups: map[string]*group{}})
	}
	m.prefixes[at].groups[g.key] = g
	return true
}

func (m *matcher) remove(g *group) {
	m.groups--
	switch g.kind {
	case kindExact:
		delete(m.exact, g.key)
	case kindAll:
		m.all = nil
	case kindPrefix:
		for i := range m.prefixes {
			p := &m.prefixes[i]
			if p.bytes != len(g.key) || p.groups[g.key] != g {
				continue
			}
			delete(p.groups, g.key)
			if len(p.groups) == 0 {
				m.prefixes = slices.Delete(m.prefixes, i, i+1)
			}
			return
		}
		end, unbounded := prefixEnd([]byte(g.key))
		m.ranges.remove(interval{lo: g.key, hi: end, unbounded: unbounded, prefix: true})
	default:
		m.ranges.remove(intervalOf(g.kind, g.key, g.end))
	}
}

// match appends the groups whose range contains key.
func (m *matcher) match(dst []*group, key []byte) []*group {
	if m.all != nil {
		dst = append(dst, m.all)
	}
	if g := m.exact[string(key)]; g != nil {
		dst = append(dst, g)
	}
	for i := range m.prefixes {
		p := &m.prefixes[i]
		if p.bytes > len(key) {
			break
		}
		if g := p.groups[string(key[:p.bytes])]; g != nil {
			dst = append(dst, g)
		}
	}
	return m.ranges.stab(dst, key)
}

// attach puts the cursor into a group of this matcher.
func (m *matcher) attach(g *group, c *cursor) {
	c.group, c.pos = g, int32(len(g.cursors))
	g.cursors = append(g.cursors, c)
	if len(g.cursors) <= hotGroup {
		return
	}
	hot := m.hot[g]
	if hot == nil {
		hot = make(map[hotKey]*cursor, 2*hotGroup)
		if m.hot == nil {
			m.hot = map[*group]map[hotKey]*cursor{}
		}
		m.hot[g] = hot
		for _, o := range g.cursors {
			hot[hotKey{o.stream, o.variant}] = o
		}
	}
	hot[hotKey{c.stream, c.variant}] = c
}

// detach takes the cursor out; c.group stays as the record of its range.
func (m *matcher) detach(c *cursor) {
	g := c.group
	last := len(g.cursors) - 1
	moved := g.cursors[last]
	g.cursors[c.pos], moved.pos = moved, c.pos
	g.cursors[last] = nil
	g.cursors = g.cursors[:last]
	if hot := m.hot[g]; hot != nil {
		if k := (hotKey{c.stream, c.variant}); hot[k] == c {
			delete(hot, k)
		}
		if last <= hotGroup/2 {
			delete(m.hot, g)
		}
	}
	if last == 0 {
		m.remove(g)
	}
}

// cursor returns some cursor of the stream and variant in the group, or nil.
func (m *matcher) cursor(g *group, s *Stream, v variant) *cursor {
	if hot := m.hot[g]; hot != nil {
		return hot[hotKey{s, v}]
	}
	for _, c := range g.cursors {
		if c.stream == s && c.variant == v {
			return c
		}
	}
	return nil
}

// appendGroups appends every group.
func (m *matcher) appendGroups(dst []*group) []*group {
	if m.all != nil {
		dst = append(dst, m.all)
	}
	for _, g := range m.exact {
		dst = append(dst, g)
	}
	for i := range m.prefixes {
		for _, g := range m.prefixes[i].groups {
			dst = append(dst, g)
		}
	}
	return m.ranges.root.appendGroups(dst)
}
