"""A lock's URL: how libpq connects, and the table of locks.

Only libpq knows the servers that URL, service file and variables name together. So we ask it: an attempt with
an impossible option ends before it contacts anybody, and has the options that libpq would use.
"""

from __future__ import annotations

import os

from singleton_run.api.deadline import Timeout
from singleton_run.api.lock_address import parts, redact
from singleton_run.api.resolve import Lookup
from singleton_run.api.url import whole_number
from singleton_run.errors import UNUSABLE, Refused, Unavailable
from singleton_run_postgres.libpq import Error, PGconn, conninfo_of, options_of
from singleton_run_postgres.statements import MARKS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from singleton_run.api.deadline import Deadline

_OURS = "singleton_run_"
_DEFAULTS = {"schema": "public", "table": "singleton_run_lock"}
# The server cuts longer names off at 63 bytes. The table of the marks has the other's name with a suffix.
_LONGEST = {"schema": 63, "table": 63 - len(MARKS)}
_FILES = (b"sslcert", b"sslkey", b"sslrootcert", b"sslcrl")
"""Of an sslkey ENGINE:KEY has a colon, and the authorities can be the `system`'s."""
_IMPOSSIBLE = "?"
_IN_ADDRESSES = frozenset("0123456789abcdefABCDEF:.")
_NOT_IN_PLACES = frozenset("@/= ?#\\")


class Address:
    """A database, the servers that have it, and the table in it. The constructor raises Refused (78).

    `shown` is the URL without its password. `unchecked` is libpq's sslmode where it doesn't check the
    certificate of a server on another machine. It is empty where encryption was switched off. `user` is whom
    libpq logs in as, '' if it doesn't know. `is_here` says that all servers are on this machine, by their
    names.
    """

    def __init__(self, url: str) -> None:
        self.shown = redact(url)
        try:
            parts(url)
            url.encode()
        except UnicodeError:
            raise Refused(f"{_named(url)} is no PostgreSQL URL: it is not UTF-8", UNUSABLE) from None
        except ValueError as error:
            raise Refused(f"{_named(url)} is no PostgreSQL URL: {error}", UNUSABLE) from None
        for_libpq, own = _split(url)
        self.schema, self.table = own["schema"], own["table"]
        self._options = _parsed(for_libpq)
        self.unchecked = ""
        self._places = self._find_places()
        self._lookups: dict[str, Lookup] = {}
        self._known: dict[str, list[str]] = {}

    def routes(self, deadline: Deadline) -> list[tuple[str, bytes]]:
        """A conninfo for each address of each server, so that libpq looks up no name, and the server's place.

        Raises Unavailable if no name can be looked up, Interrupted.
        """
        routes = []
        trouble = ""
        for host, hostaddr, port in self._places:
            try:
                addresses = [hostaddr] if hostaddr or _is_local(host) else self._look_up(host, deadline)
            except LookupError as error:
                trouble = str(error)
                continue
            place = f"{host} {hostaddr} {port}"
            routes += [(place, self._conninfo(host, address, port)) for address in addresses]
        if not routes:
            raise Unavailable(f"postgres: {trouble}")
        return routes

    def _conninfo(self, host: str, hostaddr: str, port: str) -> bytes:
        options = {**self._options, "host": host, "hostaddr": hostaddr, "port": port}
        if len(self._places) > 1 and self._attributes == "any":
            # Only one of several servers is the primary, where a lock can be taken.
            options["target_session_attrs"] = "read-write"
        return conninfo_of(options)

    def _find_places(self) -> list[tuple[str, str, str]]:
        """(host, hostaddr, port) of each server. Raises Refused (78) if libpq can't use the options."""
        probe = {"host": "", "port": "", "hostaddr": _IMPOSSIBLE}
        refused = PGconn.connect_start(conninfo_of({**self._options, **probe}))
        error = refused.error_message.decode(errors="replace")
        if f'"{_IMPOSSIBLE}"' not in error:  # libpq comes to it only if all other options are right
            raise Refused(f"postgres: {' '.join(error.split())}: correct {self.shown} or PG*", UNUSABLE)
        told = PGconn.connect_start(conninfo_of({**self._options, "sslmode": _IMPOSSIBLE})).info
        found = {option.keyword: self._text(option.keyword, option.val) for option in told}
        self._attributes = found.get(b"target_session_attrs", "any")
        self.user = found.get(b"user", "")
        modes = [option.val for option in refused.info if option.keyword == b"sslmode"]
        mode = self._text(b"sslmode", modes[0] if modes else None)
        hosts, addresses, ports = (found.get(key, "").split(",") for key in (b"host", b"hostaddr", b"port"))
        if not all(map(_is_place, [*hosts, *addresses])):
            raise Refused("postgres: a host must be a name, an address or a directory: see PGHOST", UNUSABLE)
        if any(word in found.get(b"dbname", "").lower() for word in ("://", "password")):
            raise Refused("postgres: the database must be a name, not an address: see PGDATABASE", UNUSABLE)
        count = max(len(hosts), len(addresses))
        if len(ports) not in (1, count) or not all(_is_port(port) for port in ports):
            raise Refused(f"postgres: {self.shown}: give one port, or one for each host", UNUSABLE)
        columns = (column * (count // len(column)) for column in (hosts, addresses, ports))
        places = list(zip(*columns, strict=True))
        if mode != "disable" and not all(_is_local(hostaddr or host) for host, hostaddr, _ in places):
            _check_files(found)
        self.is_here = all(_is_here(hostaddr or host) for host, hostaddr, _ in places)
        if not (self.is_here or _is_checked(mode, found)):
            self.unchecked = mode
        return places

    def _text(self, keyword: bytes, value: bytes | None) -> str:
        try:
            return (value or b"").decode()
        except UnicodeDecodeError:
            word = keyword.decode()
            raise Refused(f"postgres: {word} is not UTF-8: correct {self.shown} or PG*", UNUSABLE) from None

    def _look_up(self, host: str, deadline: Deadline) -> list[str]:
        """The addresses of `host`, looked up for each connection: a fail-over may have moved the name.

        The last known ones serve on if the lookup fails or takes long. Raises LookupError, Interrupted.
        """
        lookup = self._lookups[host] = self._lookups.get(host) or Lookup(host, 0)
        try:
            lookup.wait(deadline.share(2))
        except Timeout:
            error = "no answer in time"
        else:
            del self._lookups[host]
            lookup.close()
            error = lookup.error
            if lookup.addresses:
                self._known[host] = list(dict.fromkeys(address[0] for _, address in lookup.addresses))
        if host not in self._known:
            raise LookupError(f"the host name {host!r} can't be looked up ({error})")
        return self._known[host]


def _is_local(host: str) -> bool:
    """Whether libpq takes `host` for the directory of a socket, or for its own default."""
    return not host or host[0] in "/@"


def _is_place(host: str) -> bool:
    """Whether `host` can be a host's name, an address or a directory. The rest of a password hardly can."""
    if _is_local(host):
        login = host.startswith("//") and ":" in host  # of a URL without its scheme, cut at a comma
        return not login and "@" not in host[1:] and "password" not in host
    if ":" in host:
        return _IN_ADDRESSES.issuperset(host.partition("%")[0])
    return _NOT_IN_PLACES.isdisjoint(host)


def _is_here(place: str) -> bool:
    """Whether `place` is this machine, judged by its name alone."""
    return _is_local(place) or place in ("localhost", "::1") or place.startswith("127.")


def _is_checked(mode: str, options: Mapping[bytes, str]) -> bool:
    """Whether libpq checks the server's certificate: with a file of authorities also for `require`."""
    if mode == "require":
        return os.path.exists(options.get(b"sslrootcert") or os.path.expanduser("~/.postgresql/root.crt"))
    return mode not in ("allow", "prefer")


def _check_files(options: Mapping[bytes, str]) -> None:
    """Raise Refused (78) for a file of TLS that is named and isn't there: libpq would go on without it."""
    for word in _FILES:
        path = options.get(word, "")
        is_elsewhere = (
            path == "system" if word == b"sslrootcert" else ":" in path and not path.startswith("/")
        )
        if path and not is_elsewhere and not os.path.exists(path):
            raise Refused(
                f"postgres: {word.decode()}: there is no file {path}: see the URL and PGSSL*", UNUSABLE
            )


def _is_port(text: str) -> bool:
    return not text or 0 < whole_number(text) < 1 << 16


def _split(url: str) -> tuple[str, dict[str, str]]:
    """The URL without our own parameters, and these. Raises Refused (78)."""
    scheme, separator, _ = url.partition("://")
    if not separator:
        return f"{scheme}://", dict(_DEFAULTS)
    rest, _, query = url.partition("?")
    items = query.split("&") if query else []
    own = dict(_DEFAULTS)
    for item in items:
        name, _, value = item.partition("=")
        if not name.startswith(_OURS):
            continue
        key = name.removeprefix(_OURS)
        if key not in own or not value:
            known = " and ".join(f"{_OURS}{word}=NAME" for word in own)
            named = name if name in redact(url) else f"{_OURS}…"
            raise Refused(f"{redact(rest)}: {named!r} is none of {known}", UNUSABLE)
        own[key] = _identifier(item, _unquoted(value), _LONGEST[key])
    theirs = [item for item in items if not item.startswith(_OURS)]
    return rest + ("?" if theirs else "") + "&".join(theirs), own


def _identifier(item: str, value: str, longest: int) -> str:
    """`value`, if the server takes it as it is and doesn't cut it off. Raises Refused (78)."""
    if "\0" in value or len(value.encode()) > longest:
        raise Refused(f"{item}: a name of 1 to {longest} bytes is needed", UNUSABLE)
    return value


def _unquoted(text: str) -> str:
    from urllib.parse import unquote

    return unquote(text)


def _named(url: str) -> str:
    """The name for a URL that can't be read: its scheme alone."""
    return f"{url.partition('://')[0]}://…"


def _parsed(url: str) -> dict[str, str]:
    """The options for libpq in `url`. Raises Refused (78), without a password in its text."""
    try:
        found = options_of(url)
    except Error:
        raise Refused(f"{_named(url)} is no PostgreSQL URL: {_why(url)}", UNUSABLE) from None
    return {"fallback_application_name": "singleton-run", **found}


def _why(url: str) -> str:
    """Libpq's reason, which has parts of the URL in it: so libpq gets it without user and password."""
    scheme, _, hosts, path, query = parts(url)
    bare = f"{scheme}://{hosts}{path}?{query}"
    if redact(bare) != bare:
        return "a parameter is unknown or has no value: in a password write & as %26, = as %3D and % as %25"
    try:
        options_of(bare)
    except Error as error:
        return " ".join(str(error).split())
    return "its user or password is wrongly encoded: write % itself as %25"
