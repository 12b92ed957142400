package raft

// fifo is a queue in a slice that is reused: pushing allocates only while the
// queue grows beyond what it has been.
type fifo[T any] struct {
	items []T
	head  int
}

func (f *fifo[T]) len() int { return len(f.items) - f.head }

func (f *fifo[T]) push(v T) {
	if f.head > 0 && len(f.items) == cap(f.items) && f.head*2 >= len(f.items) {
		n := copy(f.items, f.items[f.head:])
		clear(f.items[n:])
		f.items, f.head = f.items[:n], 0
	}
	f.items = append(f.items, v)
}

// front returns the oldest; it is valid until the next push or pop.
func (f *fifo[T]) front() *T { return &f.items[f.head] }

// at returns the i-th oldest.
func (f *fifo[T]) at(i int) *T { return &f.items[f.head+i] }

func (f *fifo[T]) back() *T { return &f.items[len(f.items)-1] }

func (f *fifo[T]) pop() T {
	var zero T
	v := f.items[f.head]
	f.items[f.head] = zero
	f.head++
	if f.head == len(f.items) {
		f.items, f.head = f.items[:0], 0
	}
	return v
}

// pushFront puts v back before the oldest.
func (f *fifo[T]) pushFront(v T) {
	if f.head > 0 {
		f.head--
		f.items[f.head] = v
		return
	}
	var zero T
	f.items = append(f.items, zero)
	copy(f.items[1:], f.items)
	f.items[0] = v
}

// truncate keeps the n oldest.
func (f *fifo[T]) truncate(n int) {
	clear(f.items[f.head+n:])
	f.items = f.items[:f.head+n]
	if n == 0 {
		f.items, f.head = f.items[:0], 0
	}
}

// remove takes the i-th oldest out.
func (f *fifo[T]) remove(i int) T {
	v := f.items[f.head+i]
	copy(f.items[f.head+i:], f.items[f.head+i+1:])
	f.truncate(f.len() - 1)
	return v
}
