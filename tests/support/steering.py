"""A lab whose lock people steer, by the subcommands, and what they are told."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.harness import LIMIT, LONG, PROGRAM, Lab, Run, environment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Steered(Lab):
    """A lab at any lock: `variables` are what its calls need of the environment."""

    variables: Mapping[str, str] = {}

    def put_at(self, lock: str, **variables: str) -> None:
        """Have the lock there."""
        self.lock = lock
        self.variables = variables

    def call(self, *options: str, command: Sequence[str] = ()) -> Run:
        """Start a command under the lock."""
        return self.start(*options, command=[*command] or self.job(), environ=environment(**self.variables))

    def hold(self, *options: str, ttl: str = LONG, words: Sequence[str] = ()) -> Run:
        """Start a command that goes on, and wait until it runs."""
        jobs = self.evidence.count("ready")
        run = self.call("--ttl", ttl, *options, command=self.long_job(*words))
        self.ready(jobs + 1)
        return run

    def people(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A subcommand for this lock, once it has ended: its word, and what stands after the lock's name."""
        return subprocess.run(
            self.line(*words),
            env=environment(**self.variables, **variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def line(self, word: str, *options: str) -> list[str]:
        """The words of such a call."""
        return [*PROGRAM, word, self.name, "--lock", self.lock, *options]

    def does(self, *words: str) -> str:
        """A subcommand that succeeds: what it says."""
        done = self.people(*words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def turn(self) -> dict[str, str]:
        """The variables by which the command that started last knows its turn."""
        turn = self.evidence.turns()[-1]
        process = min(self.evidence.processes(turn))
        entries = Path(f"/proc/{process}/environ").read_bytes().decode().split("\0")
        words = dict(entry.split("=", 1) for entry in entries if "=" in entry)
        return {word: text for word, text in words.items() if word.startswith("SINGLETON_")}

    def check(self, turn: Mapping[str, str], *options: str) -> subprocess.CompletedProcess[str]:
        """A `check` by that turn, once it has ended."""
        return subprocess.run(
            [*PROGRAM, "check", *options],
            env=environment(**{**self.variables, **turn}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def next_one(self) -> None:
        """Whoever comes next gets the lock, runs alone, and ends well."""
        turns = len(self.evidence.turns())
        run = self.call("--wait", "60s")
        assert run.wait() == 0, run.said
        self.evidence.check(turns + 1)
