"""Where the primary is, as Sentinels tell it. Each is asked on a connection of its own, which is closed."""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.deadline import Timeout
from singleton_run.api.http.wire import Broken, Socket
from singleton_run.api.servers import in_turn, no_answer
from singleton_run.api.url import authority, whole_number
from singleton_run.errors import DENIED, UNUSABLE, Refused
from singleton_run_redis.driver import Link
from singleton_run_redis.errors import ServerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.resolve import AddressBook, HostPort
    from singleton_run_redis.resp import Command


class Sentinels:
    """The Sentinels at `places`, which watch over the primary named `service`. `login` is ours there."""

    def __init__(self, places: Sequence[HostPort], service: str, login: tuple[str, str]) -> None:
        self._places = [*places]
        self._service = service
        self._login = login

    def primary(self, book: AddressBook, deadline: Deadline) -> HostPort:
        """Host and port of the primary, by the first that answers. Raises Unavailable, Refused, Interrupted.

        They may not have noticed yet that it is gone.
        """
        failures: dict[str, Exception] = {}
        strangers = 0
        for place, share in in_turn(self._places, deadline):
            named = authority(*place)
            try:
                found = self._ask(place, book, share)
            except (LookupError, Broken, Timeout) as error:
                failures[named] = error
                book.refresh(place)
            except ServerError as error:
                if error.failure().status == DENIED:
                    raise Refused(f"redis: the Sentinel {named} refuses us: {error}") from None
                failures[named] = error
            else:
                if found is not None:
                    return found
                strangers += 1
                failures[named] = LookupError(f"it watches over no {self._service!r}")
        if strangers == len(self._places):
            raise Refused(f"redis: no Sentinel watches over {self._service!r}: correct the name", UNUSABLE)
        raise no_answer("redis", failures)

    def _ask(self, place: HostPort, book: AddressBook, deadline: Deadline) -> HostPort | None:
        failure: Exception = Broken("it has no address")
        for address, share in in_turn(book.find(place, deadline), deadline):
            try:
                link = Link(Socket(address, share))
            except (Broken, Timeout) as error:
                failure = error
                continue
            try:
                return self._answer(link, place, share)
            finally:
                link.close()
        raise failure

    def _answer(self, link: Link, place: HostPort, deadline: Deadline) -> HostPort | None:
        user, password = self._login
        commands: list[Command] = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)]
        if password:
            commands.insert(0, ("AUTH", *([user] if user else []), password))
        answers = toolbox.request(
            lambda: link.ask(commands, deadline), "sentinel", lambda: authority(*place), lambda _: "answered"
        )
        for answer in answers:
            if isinstance(answer, ServerError):
                raise answer
        if not answers[-1]:
            return None
        host, port = (word.decode(errors="replace") for word in answers[-1])
        return host, whole_number(port)
