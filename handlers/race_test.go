//go:build race

package handlers

// raceEnabled: a sync.Pool drops things on purpose under the race detector.
const raceEnabled = true
