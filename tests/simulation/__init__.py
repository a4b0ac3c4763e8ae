"""A deterministic simulation of turns of one lock: one seed, one history.

Real are the decisions of `singleton_run.front`, `guard` and `keeper`, and `lease_times`. Simulated is all
that is around them: true time, machines whose boot clocks are off and drift, processes that are killed,
stopped and frozen between any two actions, the command's processes, the network and the server.
`make simulate SEEDS=1..1000` plays histories; a single seed prints its own.

What is checked, at every step at which it could become false (`checks`):

- at most one command's processes live, anywhere, and they live under a lease that has not lapsed;
- a command is started once, under a lock that is ours, with a token greater than all before;
- nothing is granted to a front under a pause that the keeper was told of, and an order to give the lock
  back is obeyed in time by a turn that nothing else befalls;
- nothing is released while a process lives, nor without the kernel's word that none does;
- never two keepers; a front that exits by itself leaves nothing running; one that was killed, soon;
- a turn that nothing befell, or nothing but one keeper's death or hanging, runs its command, has the
  command's status, and settles at once;
- every turn ends: at the end of a history, when no fault is left, all have had theirs.

The documented exceptions are counted, not overlooked; `checks.excuse` has them all. A machine that is
frozen runs nothing. When it thaws, our processes look at the lease first, but the command goes on in
the same instant, so it is excused for GRACE seconds of true time, in which it must be killed; the same
holds after a time in which all three of ours were stopped or dead. One that was about to start the
command when it was frozen still starts it, and kills it in the same way. A command whose key was
deleted by hand is excused until a ttl later. When front and guard are killed together and the keeper
is not the one that forked the guard, nobody is left above the command: the keeper must keep the lock
for ever, and a person ends it.

Nobody waits for ever: each pause ends by itself or is ended.

Not simulated: locks that the kernel frees by itself (they have no keeper and no clock), processes in
uninterruptible sleep for longer than a moment, and process ids that are used again.
"""
