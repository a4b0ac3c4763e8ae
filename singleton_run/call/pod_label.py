"""What may be a label of a Kubernetes object, by the rules of the API server."""

from __future__ import annotations

_ENDS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_INNER = _ENDS | frozenset("-_.")
_LONGEST_WORD, _LONGEST_PREFIX = 63, 253


def check_label(text: str) -> str:
    """Return KEY=VALUE if it is a label. Raises ValueError, with one sentence, if it is none."""
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r} is not KEY=VALUE, as in role=leader")
    prefix, slash, name = key.rpartition("/")
    if not _is_word(name) or (slash and not _is_domain(prefix)):
        raise ValueError(f"{key!r} can't be the key of a label: role is one, and so is example.com/role")
    if value and not _is_word(value):
        raise ValueError(
            f"{value!r} can't be the value of a label: at most 63 letters, digits, '-', '_' and '.', with a "
            "letter or digit at both ends"
        )
    return text


def _is_word(text: str) -> bool:
    return bool(text) and len(text) <= _LONGEST_WORD and _INNER.issuperset(text) and _has_ends(text)


def _is_domain(text: str) -> bool:
    parts = text.split(".")
    plain = text == text.lower() and "_" not in text and len(text) <= _LONGEST_PREFIX
    return plain and all(part and _INNER.issuperset(part) and _has_ends(part) for part in parts)


def _has_ends(text: str) -> bool:
    return text[0] in _ENDS and text[-1] in _ENDS
