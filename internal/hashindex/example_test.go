package hashindex_test

import (
	"fmt"
	"hash/maphash"

	"clouddragon/internal/hashindex"
)

// The index keeps no keys: it names candidates, and the caller compares the keys.
func Example() {
	keys := []string{"ape", "bear", "cat"} // where a key stands is its location
	seed := maphash.MakeSeed()
	x := hashindex.New()
	for at, key := range keys {
		x.Insert(maphash.String(seed, key), uint64(at))
	}
	for _, at := range x.Candidates(maphash.String(seed, "bear"), nil) {
		if keys[at] == "bear" {
			fmt.Println("bear is at", at)
		}
	}
	// Output: bear is at 1
}
