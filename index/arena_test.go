package index

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestClasses(t *testing.T) {
	lastClass, lastSize := 0, uint32(0)
	for units := uint32(1); units <= jumboUnits; units++ {
		class, size := classOf(units)
		below, belowSize := classBelow(units)
		if size < units || size > units+units/8 || class >= classes || belowSize > units {
			t.Fatalf("%d units: class %d of %d, below %d of %d", units, class, size, below, belowSize)
		}
		if c, s := classBelow(size); c != class || s != size {
			t.Fatalf("%d units: class %d of %d is class %d of %d from below", units, class, size, c, s)
		}
		if class != lastClass && (class != lastClass+1 || units != lastSize+1) || class == lastClass && size != lastSize {
			t.Fatalf("%d units: class %d of %d follows %d of %d", units, class, size, lastClass, lastSize)
		}
		lastClass, lastSize = class, size
	}
}

// TestArena keeps records of random sizes, checks that none overlap, and
// frees them.
func TestArena(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		x := New()
		keys := map[ref][]byte{}
		for i := range 3000 {
			n := r.IntN(100)
			switch r.IntN(60) {
			case 0:
				n = r.IntN(200_000)
			case 1:
				if seed%4 == 0 {
					n = r.IntN(5 << 20)
				}
			}
			key := bytes.Repeat([]byte{byte(i)}, n)
			keys[x.a.newKey(key, &Version{Main: 1})] = key
			for ref, key := range keys {
				if r.IntN(3) > 0 && len(keys) > 50 {
					if !bytes.Equal(x.a.key(ref), key) {
						t.Fatalf("seed %d: record %d is damaged", seed, ref)
					}
					x.a.drop(ref)
					delete(keys, ref)
				}
			}
			if i%500 == 0 {
				c := checker{x: x, a: x.a, records: map[ref]bool{}}
				for ref := range keys {
					c.records[ref] = true
				}
				if err := c.arena(); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		}
		for ref := range keys {
			x.a.drop(ref)
		}
		if limit := int64(spareChunks+3) << 20; x.a.chunkBytes > limit {
			t.Fatalf("seed %d: empty arena holds %d bytes", seed, x.a.chunkBytes)
		}
	}
}

// TestArenaNumbers uses up the chunk numbers with jumbos, frees some, and
// finds runs of free numbers again.
func TestArenaNumbers(t *testing.T) {
	a := newArena()
	a.numbers = maxChunks - 10
	for i := uint32(1); i < a.numbers; i++ {
		a.info[i].state = chunkTail // taken
	}
	big := a.allocJumbo(4*chunkUnits - 5)
	two := a.allocJumbo(2*chunkUnits - 5)
	four := a.allocJumbo(4*chunkUnits - 5)
	if a.numbers != maxChunks || a.roomBytes() != 0 {
		t.Fatal(a.numbers)
	}
	a.releaseJumbo(big)
	a.releaseJumbo(four)
	if got := a.allocJumbo(3*chunkUnits - 5); got != big {
		t.Fatal(got, big)
	}
	if got := a.allocJumbo(3*chunkUnits - 5); got != four {
		t.Fatal(got, four)
	}
	for range 2 {
		no := a.takeNumber()
		if no != uint32(big)>>chunkUnitBits+3 && no != uint32(four)>>chunkUnitBits+3 {
			t.Fatal(no)
		}
		a.info[no].state = chunkSmall
	}
	a.releaseJumbo(two)
	defer func() {
		if recover() == nil {
			t.Fatal("three numbers out of two")
		}
	}()
	a.allocJumbo(3*chunkUnits - 5)
}
