// Package early runs `clouddragon lock` before the packages of the server are initialised.
//
// Initialising all packages of this program takes milliseconds, which a job would have to wait
// for twice, since two processes run it. The front process needs none of them. Go initialises
// a package once its imports are, in the order of the packages' names, and this package
// imports little and comes early in that order. If it were initialised later, the front
// process would only start more slowly.
package early

import (
	"os"

	"clouddragon/internal/job"
	"clouddragon/internal/logqueue"
)

func init() {
	if len(os.Args) < 2 || os.Args[1] != job.Command {
		return
	}
	// Use another goroutine: this one is locked to its thread, which makes each switch to it
	// slower.
	code := make(chan int)
	go func() {
		stderr := logqueue.New(os.Stderr)
		c := job.Run(os.Args[2:], stderr)
		stderr.Close(logqueue.FlushTime)
		code <- c
	}()
	os.Exit(<-code)
}
