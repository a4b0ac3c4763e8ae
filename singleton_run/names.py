"""Lock names: which names are legal, and the default name of a command.

A legal name has 1 to 200 characters: ASCII letters, digits and `. _ - : @ +`. It doesn't begin with `.` or
`-`. It is the same on every backend: no backend cuts or changes it.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # an interpreter built without it has it from elsewhere
    from hashlib import blake2b

from singleton_run.system.texts import fsencode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 200
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_LEGAL = frozenset(_LETTERS + _LETTERS.upper() + _DIGITS + "._-:@+")
# Kubernetes allows these in an object's name, so default names need no translation on any backend.
_PLAIN = frozenset(_LETTERS + _DIGITS + ".-")
_BASE32 = _LETTERS + "234567"


def check_name(name: str) -> None:
    """Raise ValueError, one sentence for the user, if `name` is not a legal lock name."""
    if not name:
        raise ValueError("a lock name is empty")
    if len(name) > LONGEST:
        raise ValueError(f"a lock name of {len(name)} characters is too long: {LONGEST} are allowed")
    if name[0] in ".-":
        raise ValueError(f"the lock name {name!r} begins with {name[0]!r}: begin it with a letter or digit")
    for character in name:
        if character not in _LEGAL:
            allowed = "ASCII letters, digits and . _ - : @ + are allowed"
            raise ValueError(f"the lock name {name!r} has {character!r} in it: {allowed}")


def default_name(command: Sequence[str]) -> str:
    """The default name of a command: its basename, and a hash of 80 bits of all its arguments.

    The same arguments, byte for byte, have the same name on every machine.
    """
    base = command[0].rsplit("/", 1)[-1].lower() if command else ""
    slug = "".join(character if character in _PLAIN else "-" for character in base)
    return f"{slug[:40].strip('.-') or 'command'}-{digest(command)}"


def digest(words: Sequence[str]) -> str:
    """The hash of a list of words (see `hashed`), as 16 lower-case base-32 digits."""
    number = hashed(words)
    return "".join(_BASE32[number >> shift & 31] for shift in range(75, -1, -5))


def hashed(words: Sequence[str]) -> int:
    """A hash of 80 bits (BLAKE2b) of a list of words, as a number.

    The length of each word is hashed before the word: two different lists never give the same input.
    """
    state = blake2b(digest_size=10)
    for word in words:
        data = fsencode(word)
        state.update(b"%d:" % len(data))
        state.update(data)
    return int.from_bytes(state.digest(), "big")
