"""The names of the objects: the Lease of a lock, and the Lease that marks a key as done.

A lock's name is its object's name if it can be one: at most 253 of `a-z 0-9 . -`, each part between dots
beginning and ending with a letter or digit. Every other name, and one that begins as ours do, becomes
`singleton-run-`, its characters as far as these are allowed, and 160 bits of hash: two names never have one
object.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # an interpreter built without it has it from elsewhere
    from hashlib import blake2b

OURS = "singleton-run-"
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_INNER = frozenset(_LETTERS + "0123456789-")
_BASE32 = _LETTERS + "234567"
_SHOWN = 60
_LONGEST = 253


def of_lock(name: str) -> str:
    """The name of the Lease that is the lock `name`."""
    if len(name) <= _LONGEST and not name.startswith(OURS) and all(map(_is_label, name.split("."))):
        return name
    return _mapped("", name)


def of_key(name: str, key: str) -> str:
    """The name of the Lease that marks `key` as done under the lock `name`."""
    return _mapped("once-", name, key)


def _is_label(part: str) -> bool:
    return bool(part) and _INNER.issuperset(part) and part[0] != "-" and part[-1] != "-"


def _mapped(kind: str, *words: str) -> str:
    slug = "".join(letter if letter in _INNER else "-" for letter in words[0].lower())[:_SHOWN].strip("-")
    return f"{OURS}{kind}{slug}{'-' if slug else ''}{_hash(kind, *words)}"


def _hash(*words: str) -> str:
    """160 bits of hash as 32 base-32 digits. Each word has its length before it."""
    state = blake2b(digest_size=20)
    for word in words:
        data = word.encode(errors="surrogatepass")
        state.update(b"%d:" % len(data))
        state.update(data)
    number = int.from_bytes(state.digest(), "big")
    return "".join(_BASE32[number >> shift & 31] for shift in range(155, -1, -5))
