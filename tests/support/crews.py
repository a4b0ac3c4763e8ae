"""The processes of a test, at one address or another."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from singleton_run.testing import Crew, Site

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from singleton_run.testing.peer import Nursery

NOTHING: Mapping[str, str] = MappingProxyType({})


class Crews:
    """Makes crews whose peers have a backend object for an address; within a `with`, at whose end they go.

    `opener` is as in `Site`; `scheme` is that of the lock's URL where a test doesn't say another.
    """

    def __init__(self, nursery: Nursery, opener: str, scheme: str) -> None:
        self._nursery = nursery
        self._opener = opener
        self._scheme = scheme
        self._crews: list[Crew] = []

    def __call__(self, address: str, scheme: str = "", environ: Mapping[str, str] = NOTHING) -> Crew:
        lock = f"{scheme or self._scheme}://{address}"
        self._crews.append(Crew(Site(self._opener, lock, [], print, environ=environ), self._nursery))
        return self._crews[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        for crew in self._crews:
            crew.leave()
