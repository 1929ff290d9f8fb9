package commit

import "container/heap"

// Due has keys and the instant at which each is due. The zero Due is empty.
type Due[K comparable] struct{ heap dueHeap[K] }

type dueAt[K comparable] struct {
	at  int64
	key K
}

// Len returns how many keys there are.
func (d *Due[K]) Len() int { return len(d.heap.all) }

// First returns the key that is due first. ok is false if there is none.
func (d *Due[K]) First() (k K, at int64, ok bool) {
	if d.Len() == 0 {
		return k, 0, false
	}
	first := &d.heap.all[0]
	return first.key, first.at, true
}

// At returns when a key is due. ok is false if it is not there.
func (d *Due[K]) At(k K) (at int64, ok bool) {
	i, ok := d.heap.place[k]
	if !ok {
		return 0, false
	}
	return d.heap.all[i].at, true
}

// Set adds a key, or changes when it is due.
func (d *Due[K]) Set(k K, at int64) {
	if i, ok := d.heap.place[k]; ok {
		d.heap.all[i].at = at
		heap.Fix(&d.heap, i)
		return
	}
	if d.heap.place == nil {
		d.heap.place = make(map[K]int)
	}
	heap.Push(&d.heap, dueAt[K]{at, k})
}

// Drop removes a key, if it is there.
func (d *Due[K]) Drop(k K) {
	if i, ok := d.heap.place[k]; ok {
		heap.Remove(&d.heap, i)
	}
}

// dueHeap has the first on top, and knows the place of each key.
type dueHeap[K comparable] struct {
	all   []dueAt[K]
	place map[K]int
}

// Len, Less, Swap, Push and Pop are for package heap.
func (h *dueHeap[K]) Len() int           { return len(h.all) }
func (h *dueHeap[K]) Less(i, j int) bool { return h.all[i].at < h.all[j].at }
func (h *dueHeap[K]) Swap(i, j int) {
	h.all[i], h.all[j] = h.all[j], h.all[i]
	h.place[h.all[i].key], h.place[h.all[j].key] = i, j
}

func (h *dueHeap[K]) Push(x any) {
	h.place[x.(dueAt[K]).key] = len(h.all)
	h.all = append(h.all, x.(dueAt[K]))
}

func (h *dueHeap[K]) Pop() any {
	n := len(h.all) - 1
	last := h.all[n]
	h.all[n] = dueAt[K]{} // so that its strings are not kept
	h.all = h.all[:n]
	delete(h.place, last.key)
	return last
}
