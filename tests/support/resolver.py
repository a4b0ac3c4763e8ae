"""What calls tell to a resolver and to ps. To be run in namespaces of its own, as unshare(1) makes them.

Reads environments from stdin, one JSON object a line, and calls singleton-run with each for one attempt.
The only resolver there is, this one, keeps every question and answers that there is no such name. Writes a
JSON object: `said` by the calls, `asked` of the resolver, `shown` by the list of processes.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading

from tests.support.harness import PROGRAM

_SIOCSIFFLAGS = 0x8914
_UP = 1
_LIMIT = 60


def name_in(question: bytes) -> str:
    """The name in a question of the DNS, labels with whatever is in them."""
    labels, at = [], 12
    while at < len(question) and question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("latin-1"))
        at += 1 + question[at]
    return ".".join(labels)


def listen(asked: set[str]) -> None:
    """Be the resolver of this namespace from now on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        fcntl.ioctl(ours, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP))
    with tempfile.NamedTemporaryFile("w", delete=False) as told:
        told.write("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", told.name, "/etc/resolv.conf"], check=True)
    os.unlink(told.name)
    resolver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    resolver.bind(("127.0.0.1", 53))

    def answer() -> None:
        while True:
            question, who = resolver.recvfrom(4096)
            asked.add(name_in(question))
            resolver.sendto(question[:2] + b"\x81\x83" + question[4:6] + bytes(6) + question[12:], who)

    threading.Thread(target=answer, daemon=True).start()


def list_processes() -> str:
    """What `ps` reads."""
    shown = ""
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline", "rb") as line:
                shown += line.read().decode(errors="replace") + "\n"
        except OSError:
            continue
    return shown


def main() -> None:
    """See above."""
    asked: set[str] = set()
    listen(asked)
    said, shown = "", set()
    for line in sys.stdin:
        call = [*PROGRAM, "-vv", "--name", "n", "--wait", "0", "--", "true"]
        with subprocess.Popen(
            call, env=json.loads(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as run:
            done = threading.Thread(target=run.wait, args=(_LIMIT,))
            done.start()
            while done.is_alive():
                shown.update(list_processes().splitlines())
                done.join(0.02)
            assert run.stdout is not None
            said += run.stdout.read()
    print(json.dumps({"said": said, "asked": sorted(asked), "shown": sorted(shown)}))


if __name__ == "__main__":
    main()
