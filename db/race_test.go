//go:build race

package db

// underRace: the race detector makes everything slower, so tests do less.
const underRace = true
