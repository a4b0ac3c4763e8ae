"""In place of Python's package `encodings`: UTF-8 without the import of `codecs`, and all others with it.

CPython looks up UTF-8 at each start.
"""

import _codecs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class IncrementalEncoder:
    """Encodes piece by piece, as that of `encodings.utf_8` does."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors

    def encode(self, text: str, final: bool = False) -> bytes:
        """These characters as UTF-8."""
        return _codecs.utf_8_encode(text, self.errors)[0]

    def reset(self) -> None:
        """Forget what came before: nothing is kept."""

    def getstate(self) -> int:
        """What is kept: nothing."""
        return 0

    def setstate(self, state: int) -> None:
        """Go on from this state: there is only one."""


class IncrementalDecoder:
    """Decodes piece by piece, and keeps the bytes of a character that isn't complete yet."""

    def __init__(self, errors: str = "strict") -> None:
        self.errors = errors
        self.kept = b""

    def decode(self, data: bytes, final: bool = False) -> str:
        """The characters that are complete. Raises UnicodeDecodeError for bytes that are no UTF-8."""
        whole = self.kept + data
        text, used = _codecs.utf_8_decode(whole, self.errors, final)
        self.kept = whole[used:]
        return text

    def reset(self) -> None:
        """Forget the bytes of an incomplete character."""
        self.kept = b""

    def getstate(self) -> tuple[bytes, int]:
        """The bytes of an incomplete character, and 0."""
        return self.kept, 0

    def setstate(self, state: tuple[bytes, int]) -> None:
        """Go on from what `getstate` gave."""
        self.kept = state[0]


def _decode(data: bytes, errors: str = "strict") -> tuple[str, int]:
    return _codecs.utf_8_decode(data, errors, True)


class _Utf8(tuple):  # type: ignore[type-arg]  # noqa: SLOT001 - CPython sets no attributes, and reads these
    """What codecs.lookup("utf-8") gives: the attributes of codecs.CodecInfo."""

    name = "utf-8"
    _is_text_encoding = True
    encode = staticmethod(_codecs.utf_8_encode)
    decode = staticmethod(_decode)
    incrementalencoder = IncrementalEncoder
    incrementaldecoder = IncrementalDecoder

    def __getattr__(self, name: str) -> "Any":
        """Its reader and writer of streams."""
        from encodings import utf_8

        return getattr(utf_8.getregentry(), name)


_UTF_8 = _Utf8((_codecs.utf_8_encode, _decode, None, None))


def normalize_encoding(encoding: str) -> str:
    """An encoding's name with one `_` for all that is neither a letter, a digit nor a dot."""
    words = "".join(sign if sign.isalnum() or sign == "." else " " for sign in encoding).split()
    return "_".join(words).encode("ascii", "ignore").decode("ascii")


def search_function(encoding: str) -> "Any":
    """What is known of an encoding; None if it isn't here."""
    if encoding in {"utf-8", "utf_8", "utf8"}:
        return _UTF_8
    from encodings.aliases import aliases

    name = normalize_encoding(encoding)
    name = aliases.get(name) or aliases.get(name.replace(".", "_")) or name
    if "." in name:
        return None
    try:
        module = __import__(f"encodings.{name}", fromlist=("getregentry",))
    except ImportError:
        return None
    entry: Callable[[], Any] | None = getattr(module, "getregentry", None)
    return None if entry is None else entry()


_codecs.register(search_function)
