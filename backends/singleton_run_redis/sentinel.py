"""Where the primary is, as Sentinels tell it. Each is asked on a connection of its own, which is closed."""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.deadline import Timeout
from singleton_run.api.http.wire import Broken, Socket, Untrusted
from singleton_run.api.servers import in_turn, no_answer
from singleton_run.api.url import authority, whole_number
from singleton_run.errors import DENIED, UNUSABLE, Refused
from singleton_run_redis.driver import Link
from singleton_run_redis.errors import ServerError
from singleton_run_redis.security import no_greeting, secured, why

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.tls import Tls
    from singleton_run.api.http.wire import Wire
    from singleton_run.api.resolve import AddressBook, HostPort
    from singleton_run_redis.address import Address
    from singleton_run_redis.resp import Command


_UNKNOWN = "unknown command"  # the error has no code of its own: see `errors`


class Sentinels:
    """The Sentinels that `address` names, spoken to with these settings of TLS, None for none."""

    def __init__(self, address: Address, tls: Tls | None) -> None:
        self._places = [*address.sentinels]
        self._service = address.service
        self._login = address.sentinel_login
        self._tls = tls

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
        if all(isinstance(error, ServerError) and _UNKNOWN in error.text for error in failures.values()):
            named = next(iter(failures))
            raise Refused(f"redis: {named} is no Sentinel: for a server alone say redis://", UNUSABLE)
        untrusted = all(isinstance(error, Untrusted) for error in failures.values())
        raise no_answer("redis: the Sentinels", failures, untrusted=untrusted)

    def _ask(self, place: HostPort, book: AddressBook, deadline: Deadline) -> HostPort | None:
        failure: Exception = Broken("it has no address")
        for address, share in in_turn(book.find(place, deadline), deadline):
            wire: Wire | None = None
            try:
                wire = Socket(address, share)
                return self._answer(secured(self._tls, wire, place[0], share), place, share)
            except (Broken, Timeout) as error:
                failure = why(failure, error)
            finally:
                if wire is not None:
                    wire.close()
        raise failure

    def _answer(self, wire: Wire, place: HostPort, deadline: Deadline) -> HostPort | None:
        user, password = self._login
        commands: list[Command] = [("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)]
        if password:
            commands.insert(0, ("AUTH", *([user] if user else []), password))
        try:
            answers = toolbox.request(
                lambda: Link(wire).ask(commands, deadline),
                "sentinel",
                lambda: authority(*place),
                lambda _: "answered",
            )
        except Broken as error:
            raise no_greeting(error, tls=self._tls is not None) from None
        for answer in answers:
            if isinstance(answer, ServerError):
                raise answer
        if not answers[-1]:
            return None
        host, port = (word.decode(errors="replace") for word in answers[-1])
        return host, whole_number(port)
