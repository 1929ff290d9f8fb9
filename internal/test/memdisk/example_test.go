package memdisk_test

import (
	"fmt"
	"log"

	"clouddragon/internal/test/memdisk"
)

// A power cut keeps what was synced. Nothing else is certain.
func Example() {
	fs := memdisk.New()
	f, err := fs.Create("file")
	if err != nil {
		log.Fatal(err)
	}
	write := func(text string, off int64) {
		if _, err := f.WriteAt([]byte(text), off); err != nil {
			log.Fatal(err)
		}
	}
	write("synced", 0)
	if err := f.Sync(); err != nil {
		log.Fatal(err)
	}
	if err := fs.SyncDir(""); err != nil {
		log.Fatal(err)
	}
	write(" and not", 6)
	after := fs.Cut(fs.Len()).Nothing() // that was not synced survives
	b, err := after.ReadFile("file")
	fmt.Printf("%s %v\n", b, err)
	// Output: synced <nil>
}
