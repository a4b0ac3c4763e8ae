"""The server and our login there: from the lock's URL, else from REDIS_URL."""

from __future__ import annotations

from singleton_run.api.lock_address import parts, refuse
from singleton_run.api.url import host_and_port, options, unquoted, whole_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PORT = 6379
_DEFAULT = "redis://127.0.0.1"
_FORMS = {
    "redis": "redis://[USER:PASSWORD@]HOST:PORT/DATABASE",
    "rediss": "rediss://[USER:PASSWORD@]HOST:PORT/DATABASE?ssl_ca_certs=FILE",
    "unix": "unix://[USER:PASSWORD@]/PATH/OF/SOCKET?db=DATABASE",
    "redis+sentinel": "redis+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE?db=DATABASE",
    "rediss+sentinel": "rediss+sentinel://[USER:PASSWORD@]HOST:PORT,HOST:PORT/SERVICE?ssl_ca_certs=FILE",
    "redis+cluster": "redis+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT",
    "rediss+cluster": "rediss+cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT?ssl_ca_certs=FILE",
    "redis+quorum": "redis+quorum://[USER:PASSWORD@]HOST:PORT,HOST:PORT,HOST:PORT/DATABASE",
    "rediss+quorum": "rediss+quorum://[USER:PASSWORD@]HOST:PORT,HOST:PORT,HOST:PORT/DATABASE?ssl_ca_certs=FILE",
}
_FEWEST_MASTERS = 3
_LONGEST_PATH = 107
_MOST_REPLICAS = 5
_LOGIN = ("db", "username", "password", "replicas")
_SENTINEL_PORT = 26379
_OF_SENTINEL = ("sentinel_username", "sentinel_password")
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_server_name")


class Address:
    """A server, and our login there. The constructor raises Refused (78).

    `host` and `port` say where it is; for a Unix socket `host` is the socket's path, and `port` 0. Where
    `sentinels` (their hosts and ports) tell that, `service` is the name by which they know it, `host` is
    empty, and `sentinel_login` are our user and password with them. Where a cluster is meant, `nodes` are
    hosts and ports of some of its nodes, and `host` is empty. Where a majority of independent servers is
    meant, `masters` has an Address for each of them, and `host` is empty. `replicas`: how many of them must
    have what was written before it counts. `user` and `password` are empty without login. `tls`: TLS is
    spoken to all of them, Sentinels too, and `ca`, `cert` and `key` are paths of files, empty for none;
    `server_name` is the name that each certificate must have in place of the host's. `insecure`: no
    certificate is checked. `scheme` is the URL's.
    """

    __slots__ = (
        "ca",
        "cert",
        "database",
        "host",
        "insecure",
        "key",
        "masters",
        "nodes",
        "password",
        "port",
        "replicas",
        "scheme",
        "sentinel_login",
        "sentinels",
        "server_name",
        "service",
        "tls",
        "user",
    )

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        variable = ""
        if "://" not in url and environ.get("REDIS_URL"):
            variable, url = "REDIS_URL: ", environ["REDIS_URL"]
        elif "://" not in url:
            url = _DEFAULT
        scheme = url.partition("://")[0]
        if scheme not in _FORMS or "://" not in url:
            refuse(f"{variable}the form is one of {', '.join(_FORMS.values())}")
        try:
            self._read(url, scheme, environ.get("REDISCLI_AUTH", ""))
        except ValueError as error:
            refuse(f"{variable}{scheme}://…: {error}: the form is {_FORMS[scheme]}")

    def _read(self, url: str, scheme: str, spare: str) -> None:
        """Take the URL apart. A password that it hasn't got is `spare`, as for redis-cli.

        Raises ValueError, with no password in its text.
        """
        _, login, hosts, path, query = parts(url)
        self.scheme = scheme
        self.tls = scheme.startswith("rediss")
        kind = scheme.partition("+")[2]
        known = _LOGIN + (_TLS if self.tls else ()) + (_OF_SENTINEL if kind == "sentinel" else ())
        words = options(query, known)
        user, _, password = login.partition(":")
        self.user = unquoted(user) or words.get("username", "")
        self.password = unquoted(password) or words.get("password", "") or spare
        self.ca, self.cert, self.key = (
            words.get(word, "") for word in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
        )
        self.server_name = words.get("ssl_server_name", "")
        self.insecure = _is_insecure(words.get("ssl_cert_reqs", "required"))
        if self.key and not self.cert:
            raise ValueError("ssl_keyfile was given without ssl_certfile: give both")
        self.replicas = whole_number(words.get("replicas", "0"))
        if not 0 <= self.replicas <= _MOST_REPLICAS:
            raise ValueError(f"replicas is not a number from 0 to {_MOST_REPLICAS}")
        database = self._read_place(kind, hosts, path, words)
        # The error's own text has a part of the password.
        if not _is_utf8(self.user) or not _is_utf8(self.password):
            raise ValueError("user or password is not UTF-8")
        self.database = whole_number(database or "0")
        if self.database < 0:
            raise ValueError("the database is not a number")
        if self.nodes and self.database:
            raise ValueError("a cluster has no database but 0")
        if kind == "quorum":
            self._read_masters(hosts)

    def _read_place(self, kind: str, hosts: str, path: str, words: Mapping[str, str]) -> str:
        """Where the server is; the database, if the URL has one. Raises ValueError."""
        database = words.get("db", "")
        self.masters: list[Address] = []
        self.nodes: list[tuple[str, int]] = []
        self.sentinels: list[tuple[str, int]] = []
        self.service = ""
        self.sentinel_login = ("", "")
        if self.scheme == "unix":
            self.host, self.port = unquoted(path), 0
            if hosts or not self.host.strip("/"):
                raise ValueError("the socket's path is missing, or does not begin with a slash")
            if "\0" in self.host or len(self.host.encode()) > _LONGEST_PATH:
                raise ValueError(f"the socket's path can't be one: it has 1 to {_LONGEST_PATH} bytes")
        elif kind == "sentinel":
            self._read_sentinels(hosts, path, words)
        elif kind == "cluster":
            self._read_nodes(hosts, path)
        elif kind == "quorum":
            self.host, self.port = "", 0
            database = path.strip("/") or database
        else:
            self.host, self.port = host_and_port(hosts or "127.0.0.1", _PORT)
            database = path.strip("/") or database
        return database

    def _read_sentinels(self, hosts: str, path: str, words: Mapping[str, str]) -> None:
        self.host, self.port = "", 0
        self.sentinels = [host_and_port(place, _SENTINEL_PORT) for place in hosts.split(",")]
        self.service = unquoted(path).strip("/")
        self.sentinel_login = (words.get("sentinel_username", ""), words.get("sentinel_password", ""))
        if not self.service or not _is_utf8(self.service):
            raise ValueError("the name is missing by which the Sentinels know the primary")

    def _read_nodes(self, hosts: str, path: str) -> None:
        self.host, self.port = "", 0
        self.nodes = [host_and_port(place, _PORT) for place in hosts.split(",")]
        if path.strip("/"):
            raise ValueError("nothing can follow the hosts of a cluster, which has no databases")

    def _read_masters(self, hosts: str) -> None:
        places = [host_and_port(place, _PORT) for place in hosts.split(",")]
        if len(places) < _FEWEST_MASTERS or len({*places}) < len(places):
            raise ValueError("a quorum is at least three servers, each named once")
        if self.replicas:
            raise ValueError("a quorum waits for no replicas: leave `replicas` out")
        for host, port in places:
            master = Address.__new__(Address)
            for word in Address.__slots__:
                setattr(master, word, getattr(self, word))
            master.host, master.port, master.masters = host, port, []
            self.masters.append(master)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeError:
        return False
    return True


def _is_insecure(text: str) -> bool:
    if text not in ("required", "none"):
        raise ValueError("ssl_cert_reqs is neither `required` nor `none`")
    return text == "none"
