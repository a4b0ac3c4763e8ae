"""HMAC-SHA256 (RFC 2104, FIPS 180-4), also where Python has no hashlib: in our executable."""

from __future__ import annotations

import math

_BLOCK = 64
_WORD = 0xFFFFFFFF


def signature(secret: str, body: bytes) -> str:
    """What proves that who knows `secret` has sent `body`: `sha256=` and 64 hexadecimal digits."""
    key = secret.encode(errors="surrogateescape")
    key = (_sha256(key) if len(key) > _BLOCK else key).ljust(_BLOCK, b"\0")
    inner = _sha256(bytes(byte ^ 0x36 for byte in key) + body)
    return f"sha256={_sha256(bytes(byte ^ 0x5C for byte in key) + inner).hex()}"


def _sha256(data: bytes) -> bytes:
    try:
        from hashlib import sha256
    except ImportError:
        return plain_sha256(data)
    return sha256(data).digest()


def plain_sha256(data: bytes) -> bytes:
    """SHA-256, by the standard's own steps: about 2 ms for each kilobyte."""
    primes = _primes(64)
    constants = [_cube_root(prime << 96) & _WORD for prime in primes]
    state = [math.isqrt(prime << 64) & _WORD for prime in primes[:8]]
    padded = data + b"\x80" + bytes(-(len(data) + 9) % _BLOCK) + (8 * len(data)).to_bytes(8)
    for start in range(0, len(padded), _BLOCK):
        words = [int.from_bytes(padded[at : at + 4]) for at in range(start, start + _BLOCK, 4)]
        for at in range(16, 64):
            one, two = words[at - 15], words[at - 2]
            small = _turned(one, 7) ^ _turned(one, 18) ^ one >> 3
            large = _turned(two, 17) ^ _turned(two, 19) ^ two >> 10
            words.append(words[at - 16] + small + words[at - 7] + large & _WORD)
        state = _compressed(state, [one + two for one, two in zip(constants, words, strict=True)])
    return b"".join(word.to_bytes(4) for word in state)


def _compressed(state: list[int], rounds: list[int]) -> list[int]:
    a, b, c, d, e, f, g, h = state
    for added in rounds:
        first = h + (_turned(e, 6) ^ _turned(e, 11) ^ _turned(e, 25)) + (e & f ^ ~e & g) + added
        second = (_turned(a, 2) ^ _turned(a, 13) ^ _turned(a, 22)) + (a & b ^ a & c ^ b & c)
        a, b, c, d, e, f, g, h = first + second & _WORD, a, b, c, d + first & _WORD, e, f, g
    return [before + after & _WORD for before, after in zip(state, (a, b, c, d, e, f, g, h), strict=True)]


def _turned(word: int, bits: int) -> int:
    return (word >> bits | word << 32 - bits) & _WORD


def _primes(count: int) -> list[int]:
    found: list[int] = []
    number = 2
    while len(found) < count:
        if all(number % prime for prime in found):
            found.append(number)
        number += 1
    return found


def _cube_root(number: int) -> int:
    """The whole part of the cube root, by halving."""
    low, high = 0, 1 << number.bit_length() // 3 + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**3 <= number else (low, middle)
    return low
