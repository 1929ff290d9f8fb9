// Package job runs a command while a lock is held, and ends the command before the lock
// can have expired.
//
// # Two processes
//
// The process that the user starts is the front. It starts a second process of
// the same program, the keeper, and the keeper starts the command:
//
//	shell ── front ── keeper ── command ── …
//
// The keeper does all the work: it reads the arguments, takes the lock, renews it, starts the
// command, ends it if the lock is lost, and gives the lock back. The front passes
// signals on, stops when the command stops, and returns the exit code.
//
// A socket pair connects the two. The kernel closes it however a process ends. So each
// notices when the other ends, even if it was killed by KILL or the out-of-memory killer,
// and then ends the command:
//
//   - If the front ends, the keeper ends the command. The command and all that it
//     started descend from the keeper.
//   - If the keeper ends, the kernel sends TERM to the command (PDEATHSIG), and
//     hands the keeper's descendants to the front. The front ends them. The command
//     may get TERM several times: the kernel sends it whenever a thread of the keeper
//     ends and hands the command to the next one, and the front sends it to the group.
//
// Both are child subreapers. So a process whose parent has ended stays a descendant of the
// keeper or the front and can be found. PDEATHSIG reaches the command, but not its children.
// If both processes are killed at once, only PDEATHSIG ends the command.
//
// A keeper that is stopped or hangs does not renew the lock. The front kills it shortly
// before the lock's end, and then ends the command as in the second case.
//
// # Process groups
//
// With a controlling terminal all three stay in the process group that the shell made for
// the job. So ^C, ^Z, fg and bg reach the command without our help, a pipeline stays one
// job, and no process has to hand over the terminal. The keeper catches the signals that
// would end or stop it, so it renews the lock while the job is stopped. Only SIGSTOP to the
// whole group stops it.
//
// A signal for the front alone has to be passed on. One for the whole group must not be,
// because the command would get it twice. The keeper is the witness: if it gets the same
// signal at about the same time, the signal was for the group.
//
// Without a controlling terminal the command and the keeper each have their own process
// group. Signals for the front are passed on to the command's whole group.
//
// When the command stops, the keeper stops the front with SIGSTOP, so the
// shell sees what it would see without us.
//
// # Ending the command
//
// Without a terminal the command's process group is ended. On a terminal that group also
// contains the front, the rest of a pipeline and perhaps the script that calls us, which
// must continue. So all descendants of the keeper are ended instead, except those in
// another session.
package job
