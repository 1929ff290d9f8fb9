package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"clouddragon/internal/disk"
)

// BenchmarkAppend measures the cost of a commit on the disk of the temporary directory.
func BenchmarkAppend(b *testing.B) {
	for _, records := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("records=%d", records), func(b *testing.B) {
			o := Options{FS: disk.OS{}, Dir: filepath.Join(b.TempDir(), "log"), ID: testID}
			l, _ := newLog(b, o)
			prepare(b, l)
			var batch Batch
			body := make([]byte, 72)
			b.ReportAllocs()
			for b.Loop() {
				batch.Reset()
				for range records {
					batch.AddBytes(1, body)
				}
				_, err := l.Append(&batch)
				if errors.Is(err, ErrNoRoom) {
					b.StopTimer()
					prepare(b, l)
					if err := l.Free(l.Segments()[1], nil); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					_, err = l.Append(&batch)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(batch.Len()))
		})
	}
}
