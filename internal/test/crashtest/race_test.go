//go:build race

package crashtest

// raceEnabled says that the program is built with the race detector too.
const raceEnabled = true
