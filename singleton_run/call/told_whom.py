"""What --on, --notify and --ping are given: events with commands, and addresses. Loaded only where one is."""

from __future__ import annotations

from singleton_run.api.url import host_and_port
from singleton_run.report.events import TOLD

PORTS = {"http": 80, "https": 443}


def hooks(text: str) -> tuple[tuple[str, str], ...]:
    """Each EVENT=COMMAND in lines; a line that begins with no event goes on with the command before it.

    Raises ValueError with one sentence.
    """
    found: list[tuple[str, str]] = []
    for line in text.split("\n"):
        event, equals, command = line.partition("=")
        if equals and event in TOLD:
            found.append((event, command))
        elif found:
            found[-1] = found[-1][0], f"{found[-1][1]}\n{line}"
        else:
            raise ValueError(f"{line[:60]!r} is not EVENT=COMMAND; the events are {', '.join(TOLD)}")
    for event, command in found:
        if not command.strip():
            raise ValueError(f"{event} has no command")
    return tuple(found)


def checked_url(text: str) -> str:
    """Return an address of http or https. Raises ValueError, with no part of it: it may have a secret."""
    taken_apart(text)
    return text


def taken_apart(url: str) -> tuple[str, str, int, str, str]:
    """Scheme, host, port, path and query of a URL. Raises ValueError as `checked_url`."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in PORTS:
        raise ValueError("an address begins with https:// or http://")
    if not rest.isascii() or not rest.isprintable() or " " in rest:
        raise ValueError("an address has visible ASCII characters alone: write others as %XX")
    rest, _, _ = rest.partition("#")
    before, question, query = rest.partition("?")
    place, slash, path = before.partition("/")
    host, port = host_and_port(place, PORTS[scheme])
    return scheme, host, port, f"/{path}" if slash else "", query if question else ""
