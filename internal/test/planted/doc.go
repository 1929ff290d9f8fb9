// Package planted tests the tests. Each file in testdata is a bug that a careful programmer
// could make. Each bug is planted alone, and the tests have to fail.
//
//	what it breaks in the real world, in one line
//
//	kvlog/wal/log.go
//	 	a line that stays
//	-	a line that goes
//	+	a line that comes
//
// So a bug is a diff without line numbers. The lines that stay and those that go must occur
// together exactly once in the file. More files and places may follow.
//
// make test checks that the bugs still fit the code. With -plant each is given to go test as
// an overlay, which leaves the tree unchanged. The test that caught a bug last
// (testdata/caught.txt) runs first. If it does not catch the bug again, all tests run, and the
// file is updated.
package planted
