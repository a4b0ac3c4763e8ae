"""The keys that are done once, where a server takes only some characters for a name."""

from __future__ import annotations

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:@+=,~")


def plain(key: str) -> str:
    """`key` in ASCII without a slash: as it is, but for what is written as %XX, of its UTF-8.

    No two keys have the same, also those that no UTF-8 can have (an argument of other bytes).
    """
    return "".join(
        character
        if character in _PLAIN
        else "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))
        for character in key
    )
