package index

// slab allocates the nodes of the tree, named by numbers from 1; freed ones
// are reused.
type slab[T any] struct {
	blocks []*[slabNodes]T
	used   uint32 // numbers ever handed out, 0 included
	freed  []uint32
}

// Blocks of this many nodes waste 1 % in the allocator's size classes; 64
// would waste 7 %.
const slabNodes = 512

func (s *slab[T]) at(i uint32) *T { return &s.blocks[i/slabNodes][i%slabNodes] }

// alloc returns the number of a zero node.
func (s *slab[T]) alloc() uint32 {
	if n := len(s.freed); n > 0 {
		i := s.freed[n-1]
		s.freed = s.freed[:n-1]
		var zero T
		*s.at(i) = zero
		return i
	}
	if s.used == 0 {
		s.used = 1
	}
	if int(s.used/slabNodes) == len(s.blocks) {
		s.blocks = append(s.blocks, new([slabNodes]T))
	}
	s.used++
	return s.used - 1
}

func (s *slab[T]) release(i uint32) { s.freed = append(s.freed, i) }
