package workload

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

const (
	// minKeyBytes leaves room for the prefix and the digits of the number.
	minKeyBytes = 24
	// minValueBytes is the stamp that a watch workload writes in front.
	minValueBytes = stampBytes
	// valuePool is how many different values a worker alternates between.
	valuePool = 16
)

// keySpace makes the keys /bench/KEYS/000…NUMBER of one length.
type keySpace struct {
	prefix string
	size   int // bytes of a key
}

func newKeySpace(name string, size int) keySpace {
	return keySpace{prefix: "/bench/" + name + "/", size: size}
}

// spaceOf is the key space that a Spec reads and writes.
func spaceOf(s Spec) keySpace { return newKeySpace(fmt.Sprint(s.Keys), s.KeyBytes) }

// append writes key number n behind dst.
func (k keySpace) append(dst []byte, n int64) []byte {
	dst = append(dst, k.prefix...)
	start := len(dst)
	for range k.size - len(k.prefix) {
		dst = append(dst, '0')
	}
	for i := len(dst) - 1; i >= start && n > 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
	return dst
}

// end is the exclusive end of the range of all keys.
func (k keySpace) end() []byte {
	end := []byte(k.prefix)
	end[len(end)-1]++
	return end
}

// values are a worker's values: random, so that nothing can compress them.
type values struct {
	pool [][]byte
	next int
}

func newValues(rng *rand.Rand, size int) *values {
	v := &values{}
	for range valuePool {
		b := make([]byte, (size+7)/8*8)
		for i := 0; i < len(b); i += 8 {
			binary.LittleEndian.PutUint64(b[i:], rng.Uint64())
		}
		v.pool = append(v.pool, b[:size])
	}
	return v
}

func (v *values) take() []byte {
	v.next++
	return v.pool[v.next%len(v.pool)]
}

// generator is worker's own source of randomness.
func generator(seed uint64, worker int) *rand.Rand {
	return rand.New(rand.NewPCG(seed, uint64(worker)))
}
