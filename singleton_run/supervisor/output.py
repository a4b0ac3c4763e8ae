"""The commands' output, line by line: one process reads it from pipes and writes it to our stdout and stderr.

Each run has two pipes of its own. The line's process makes them, gives the command one end of each, and
sends the other ends to the output's process (unix(7), SCM_RIGHTS). So a line of output is whole, and has the
name of its job and its run. Only this process waits for a slow reader. If the reader stands still, the
commands that write wait too, as they would without us, and nothing else does.
"""

from __future__ import annotations

import _socket
import os
import select
import sys
import time

from singleton_run.api.timestamps import rfc3339
from singleton_run.system import calls, fastjson
from singleton_run.system.stderr import last_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Format = Callable[[str, str, str, bytes], bytes]

LONGEST = 65536
"""A line that is longer comes in pieces of this many bytes."""
_STREAMS = {1: "stdout", 2: "stderr"}
_RUN_SHOWN = 8


class Channel:
    """The socket through which lines send the pipes of their runs. It outlives the output's process."""

    def __init__(self) -> None:
        self.receive, self.send = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)

    def sender(self) -> Sender:
        """The end of a line's process."""
        return Sender(self.send)


class Sender:
    """Sends the pipes of a line's runs."""

    def __init__(self, socket: _socket.socket) -> None:
        self.socket = socket

    def offer(self, name: str, run: str) -> tuple[int, int] | None:
        """Two descriptors for a command to write its stdout and its stderr to.

        None if the output's process doesn't take more at the moment: the command then writes to our own.
        """
        ends: list[int] = []
        try:
            ends += os.pipe()
            ends += os.pipe()
            rights = b"".join(end.to_bytes(4, sys.byteorder) for end in ends[::2])
            self.socket.sendmsg(
                [fastjson.dumps([name, run]).encode()],
                [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)],
                _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL,
            )
        except OSError:
            for end in ends[1::2]:
                os.close(end)
            return None
        finally:
            for end in ends[::2]:
                os.close(end)
        return ends[1], ends[3]


class _Stream:
    """One pipe of a run; `target` is the descriptor that its lines are written to."""

    def __init__(self, name: str, run: str, target: int) -> None:
        self.name = name
        self.run = run
        self.target = target
        self.partial = b""

    def lines(self, data: bytes) -> list[bytes]:
        """The whole lines, after `data` has come; at the end (no data) the unfinished one too."""
        *whole, self.partial = (self.partial + data).split(b"\n")
        if self.partial and (not data or len(self.partial) >= LONGEST):
            whole.append(self.partial)
            self.partial = b""
        return whole


def prefixed(name: str, run: str, stream: str, line: bytes) -> bytes:
    """A line of output with its job's name and the beginning of its run's id."""
    del stream
    return b"[%s %s] %s\n" % (name.encode(), run[:_RUN_SHOWN].encode(), line)


def as_json(name: str, run: str, stream: str, line: bytes) -> bytes:
    """A line of output as an object."""
    facts = {"event": "output", "name": name, "run": run, "stream": stream}
    message = line.decode(errors="replace")
    return fastjson.dumps({"time": rfc3339(time.time()), **facts, "message": message}).encode() + b"\n"


def run(receive: _socket.socket, form: Format) -> None:
    """Write what comes until nobody is left who could send a pipe, and all pipes are at their end."""
    streams: dict[int, _Stream] = {}
    lost: set[int] = set()
    socket = receive.fileno()
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    while socket >= 0 or streams:
        for descriptor, _ in poll.poll():
            if descriptor == socket:
                came = _receive(receive)
                streams.update(came)
                for new in came:
                    poll.register(new, select.POLLIN)
                if not came:
                    poll.unregister(socket)
                    socket = -1
                continue
            stream = streams[descriptor]
            data = os.read(descriptor, LONGEST)
            lines = (form(stream.name, stream.run, _STREAMS[stream.target], it) for it in stream.lines(data))
            _write(stream.target, b"".join(lines), lost)
            if not data:
                poll.unregister(descriptor)
                os.close(descriptor)
                del streams[descriptor]


def _receive(receive: _socket.socket) -> dict[int, _Stream]:
    """The streams of one run, by descriptor; none at the end."""
    data, rights, _, _ = receive.recvmsg(4096, _socket.CMSG_SPACE(8), _socket.MSG_CMSG_CLOEXEC)
    if not data:
        return {}
    name, run = fastjson.loads(data.decode())
    ends = b"".join(part for _, _, part in rights)
    numbers = [int.from_bytes(ends[at : at + 4], sys.byteorder) for at in range(0, len(ends), 4)]
    return {number: _Stream(name, run, target) for number, target in zip(numbers, (1, 2), strict=False)}


def _write(target: int, data: bytes, lost: set[int]) -> None:
    """Write all of it, however long it takes. What nobody can read any more is thrown away."""
    try:
        while data and target not in lost:
            try:
                data = data[os.write(target, data) :]
            except BlockingIOError:  # whoever shares it with us has made it non-blocking
                calls.wait_to_write(target)
    except OSError as error:
        lost.add(target)
        last_words(f"the commands' {_STREAMS[target]} is lost from here on: {error.strerror}")
