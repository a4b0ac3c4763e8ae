"""JSON by the C parts of the json module, because importing json itself takes 5 ms.

The C parts do all the work; the time goes into the module `re` around them. If they are missing or have
changed, json itself is used. `loads` raises ValueError for a text that isn't JSON (NaN and Infinity are none)
or is nested too deeply. `dumps` raises ValueError or TypeError for a value without a JSON form.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def fast() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    """`dumps` and `loads` by the C parts of json. Raises one of several errors if these have changed."""
    from _json import encode_basestring_ascii, make_encoder, make_scanner, scanstring

    class Context:
        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = staticmethod(_refuse_constant)
        parse_string = staticmethod(scanstring)
        memo: dict[str, str] = {}  # noqa: RUF012 - read by the C scanner of some versions

    def refuse(value: object) -> None:
        raise TypeError(f"{type(value).__name__} has no JSON form")

    encode = make_encoder(None, refuse, encode_basestring_ascii, None, ":", ",", False, False, False)
    scan: Callable[[str, int], tuple[Any, int]] = make_scanner(Context)  # type: ignore[arg-type]  # typed as itself

    def dumps(value: Any) -> str:
        return "".join(encode(value, 0))

    def loads(text: str) -> Any:
        try:
            value, end = scan(text.strip(), 0)
        except (StopIteration, SystemError):  # SystemError if json's own exception was never imported
            raise ValueError("not JSON") from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if end != len(text.strip()):
            raise ValueError("more than one JSON value")
        return value

    if loads(dumps({"a": [1, "é", None]})) != {"a": [1, "é", None]}:
        raise ImportError("_json has changed")
    return dumps, loads


def slow() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    """`dumps` and `loads` by json itself."""
    import json

    def dumps(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    def loads(text: str) -> Any:
        try:
            return json.loads(text, parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("nested too deeply") from None

    return dumps, loads


try:
    dumps, loads = fast()
except (ImportError, TypeError, AttributeError, ValueError):
    dumps, loads = slow()
