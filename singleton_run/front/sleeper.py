"""What a replica is while it rests for long: a program that waits, and then becomes singleton-run again.

It is started by `rest` as a script of its own, by an interpreter without `site`, and imports next to nothing:
that is all it takes in memory. Its arguments are descriptors (`3,4,5`), a title for ps, a program, and that
program's arguments from argv[0] on. When one of the descriptors is readable, it executes that program.
"""

import posix
import select
import sys

_ARGUMENTS_START, _ARGUMENTS_END = 45, 46
_LOCALE = b"LC_CTYPE"


def main(descriptors: str, title: str, program: str, *arguments: str) -> None:
    """Wait, and execute `program`. Exits with 78 and one line if it is gone."""
    _show(title)
    _restore(_LOCALE)
    poll = select.poll()
    *ours, last = map(int, descriptors.split(","))
    for descriptor in ours:
        posix.set_inheritable(descriptor, False)
        poll.register(descriptor, select.POLLIN)
    poll.register(last, select.POLLIN)
    poll.poll()
    try:
        posix.execv(program, arguments)
    except OSError as error:
        told = f"singleton-run: can't go on after a rest: {program}: {error.strerror}: start it again\n"
        posix.write(2, told.encode(errors="surrogateescape"))
        posix._exit(78)


def _show(title: str) -> None:
    """As `calls.set_title` does, which needs ctypes. Best effort."""
    try:
        _write("/proc/self/comm", b"singleton-run")
        fields = _read("/proc/self/stat").rpartition(b")")[2].split()
        start, end = int(fields[_ARGUMENTS_START]), int(fields[_ARGUMENTS_END])
        text = title.encode(errors="surrogateescape")[: end - start - 1]
        _write("/proc/self/mem", text.ljust(end - start, b"\0"), start)
    except (OSError, IndexError):
        return


def _restore(name: bytes) -> None:
    """Have the variable as the kernel gave it to us: Python may have set it for itself (PEP 538)."""
    try:
        entries = _read("/proc/self/environ").split(b"\0")
    except OSError:
        return
    for entry in entries:
        if entry.startswith(name + b"="):
            posix.putenv(name, entry[len(name) + 1 :])
            return
    posix.unsetenv(name)


def _read(path: str) -> bytes:
    descriptor = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    parts = []
    while part := posix.read(descriptor, 65536):
        parts.append(part)
    posix.close(descriptor)
    return b"".join(parts)


def _write(path: str, data: bytes, at: int = 0) -> None:
    descriptor = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        if at:
            posix.lseek(descriptor, at, 0)
        posix.write(descriptor, data)
    finally:
        posix.close(descriptor)


if __name__ == "__main__":
    main(*sys.argv[1:])
