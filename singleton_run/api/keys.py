"""The keys of `--once`, for servers that allow only some characters in a name."""

from __future__ import annotations

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:@+=,~")


def plain(key: str) -> str:
    """`key` in ASCII without a slash: every other character is written as %XX, a byte of its UTF-8.

    No two keys give the same text, not even keys that UTF-8 can't have (arguments of other bytes).
    """
    return "".join(
        character
        if character in _PLAIN
        else "".join(f"%{byte:02X}" for byte in character.encode(errors="surrogatepass"))
        for character in key
    )
