// Package planted tests the tests. Each file in testdata is a bug that a careful
// programmer could make: it is planted, alone, and the tests have to fail.
//
//	what it breaks in the real world, in one line
//
//	kvlog/wal/log.go
//	 	a line that stays
//	-	a line that goes
//	+	a line that comes
//
// So a bug is a diff without numbers: the lines that stay and those that go occur
// just once in the file, side by side. More files and places may follow.
//
// That they still fit is tested every day. With -plant each is given to go test
// as an overlay, which leaves the tree as it is. The test that caught a bug last
// (testdata/caught.txt) runs first; where it no longer does, all tests run, and the
// file is brought up to date.
package planted
