package index

import (
	"fmt"
	"testing"
)

func put(x *Index, key string, v Version) {
	x.BeginWrite()
	h, _, _ := x.Find([]byte(key))
	x.Put(h, []byte(key), v)
	x.EndWrite()
}

func TestSmoke(t *testing.T) {
	x := New()
	for i := range 100000 {
		k := fmt.Sprintf("/registry/pods/ns-%03d/%010x", i%200, uint32(i)*2654435761)
		put(x, k, Version{Main: int64(i + 2), Create: int64(i + 2), Ver: 1, Loc: Loc(i + 1)})
	}
	if n := x.Count([]byte("/"), nil, 0); n != 100000 {
		t.Fatal(n)
	}
	if n := x.Count([]byte("/"), nil, 50001); n != 50000 {
		t.Fatal(n)
	}
	hits, next := x.Scan(nil, []byte("/"), nil, 0, 1000)
	if len(hits) != 1000 || next == nil {
		t.Fatal(len(hits))
	}
	for i := range 100000 {
		k := fmt.Sprintf("/registry/pods/ns-%03d/%010x", i%200, uint32(i)*2654435761)
		v, ok := x.Get([]byte(k), 0)
		if !ok || v.Main != int64(i+2) {
			t.Fatal(i, v, ok)
		}
		put(x, k, Version{Main: int64(i + 100002), Tombstone: true, Loc: Loc(i + 1)})
	}
	if n := x.Count([]byte("/"), nil, 0); n != 0 {
		t.Fatal(n)
	}
	if n := x.Count([]byte("/"), nil, 50001); n != 50000 {
		t.Fatal(n)
	}
	x.BeginWrite()
	x.CompactTo(300000)
	for {
		_, done := x.CompactStep(nil, 1000)
		if done {
			break
		}
	}
	x.EndWrite()
	t.Log(x.Stats())
}
