"""Becomes the first process of a container, as Docker and Kubernetes start it. Run by unshare(1).

    python -I -S container.py ROOT USER [MOUNT…] -- PROGRAM ARGUMENT…

ROOT is the image's root directory; all but its mounts is read-only. A MOUNT is `tmpfs:PLACE`, or
`ro:FILE:PLACE` or `rw:FILE:PLACE` for what is seen at PLACE in the container. There is /proc, a /dev with
`null` alone, user and group USER without a name, no capability, and nothing that could gain one. It has
mounts and process ids of its own already: `unshare --mount --pid --fork`.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38


def mount(*words: str) -> None:
    """Run this program."""
    subprocess.run(["mount", *words], check=True)


def place(root: str, mounts: list[str]) -> None:
    """Make the file system that the container sees, below `root`."""
    mount("--bind", root, root)
    mount("-t", "proc", "proc", f"{root}/proc")
    mount("-t", "tmpfs", "tmpfs", f"{root}/dev")
    open(f"{root}/dev/null", "x").close()
    mount("--bind", "/dev/null", f"{root}/dev/null")
    for kind, *words in (text.split(":") for text in mounts):
        there = f"{root}{words[-1]}"
        if kind == "tmpfs":
            mount("-t", "tmpfs", "tmpfs", "-o", "mode=1777", there)
            continue
        mount("--bind", words[0], there)
        if kind == "ro":
            mount("-o", "remount,bind,ro", there)
    mount("-o", "remount,ro", f"{root}/dev")
    mount("-o", "remount,bind,ro", root)


def enter(root: str, user: int) -> None:
    """See the root alone, as that user, without any right."""
    os.chroot(root)
    os.chdir("/")
    os.setgroups([])
    os.setgid(user)
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    capability = 0
    while prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    os.setuid(user)


def main(root: str, user: str, *words: str) -> None:
    """Do it, and execute the program."""
    dashes = words.index("--")
    place(root, list(words[:dashes]))
    enter(root, int(user))
    os.execv(words[dashes + 1], words[dashes + 1 :])


if __name__ == "__main__":
    main(*sys.argv[1:])
