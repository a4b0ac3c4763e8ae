"""What the tests themselves rely on."""

from __future__ import annotations

import subprocess

from tests.support.harness import children_of, python, stands_still, state, until

# Its child ends at once, and it never reaps it.
LEAVES_A_ZOMBIE = python("""
import os, signal
if os.fork() == 0:
    os._exit(0)
signal.pause()
""")


def test_a_child_that_ended_while_its_parent_was_stopped_stands_still() -> None:
    with subprocess.Popen(LEAVES_A_ZOMBIE) as parent:
        try:
            (child,) = until(lambda: children_of(parent.pid), "the child")
            until(lambda: state(child) == "Z", "the child to end")
            assert stands_still(child)
            assert not stands_still(parent.pid)
        finally:
            parent.kill()
