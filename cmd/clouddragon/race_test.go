//go:build race

package main

// raceFlags build the program with the race detector, as the test itself is.
var raceFlags = []string{"-race"}
