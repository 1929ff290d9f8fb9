package main

import "io"

func verify(args []string, stdout, stderr io.Writer) int { return exitUsage }
