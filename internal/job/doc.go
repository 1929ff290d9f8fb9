// Package job runs a command while a lock is held, and ends the command before
// the lock can have ended.
//
// # Two processes
//
// The process that the user starts is the front. It starts a second process of
// the same program, the keeper, and the keeper starts the command:
//
//	shell ── front ── keeper ── command ── …
//
// The keeper does all the work: it takes the lock, renews it, starts the
// command, ends it if the lock is lost, and gives the lock back. The front passes
// signals on, stops when the command stops, and returns the exit code.
//
// A socket pair connects the two. The kernel closes it however a process ends, so
// each notices the end of the other, also by KILL or by the out-of-memory killer,
// and then ends the command:
//
//   - If the front ends, the keeper ends the command. The command and all that it
//     started descend from the keeper.
//   - If the keeper ends, the kernel sends TERM to the command (PDEATHSIG), and
//     hands the keeper's descendants to the front. The front ends them. The command
//     may get TERM several times: the kernel sends it whenever a thread of the keeper
//     ends and hands the command to the next one, and the front sends it to the group.
//
// Both are child subreapers, so that a process whose parent has ended stays below
// the keeper or the front and can be found. PDEATHSIG alone would reach the command
// but not its children. If both processes are killed at once, it is all there is.
//
// A keeper that is stopped or hangs does not renew. The front kills it shortly
// before the lock's end, which is the second case again.
//
// # Process groups
//
// With a controlling terminal all three stay in the process group that the shell
// made for the job. So the terminal's ^C and ^Z, and the shell's fg and bg reach the
// command without our help, other members of a pipeline belong to the same job, and
// nobody has to hand the terminal to anybody. The keeper catches the signals that would
// end or stop it, so it renews while the job is stopped. Only SIGSTOP to the whole group stops it.
//
// A signal for the front alone has to be passed on, one for the whole group
// must not be, or the command would get it twice. The keeper is the witness: if it
// gets the same signal at about the same time, then the signal was for the group.
//
// Without a controlling terminal the command has a process group of its own, and so
// has the keeper. Signals for the front are passed on to the command's whole group.
//
// When the command stops, the keeper stops the front with SIGSTOP, so the
// shell sees what it would see without us.
//
// # Ending the command
//
// Without a terminal the command's process group is ended. On a terminal that
// group also has the front, the rest of a pipeline and perhaps the script that calls
// us, which have not lost anything: all that descends from the keeper is ended
// instead, but for what has moved to another session.
package job
