"""The servers of etcd and our login there: from the lock's URL, else from etcdctl's variables."""

from __future__ import annotations

from singleton_run.api.lock_address import parts, refuse
from singleton_run.api.url import host_and_port, options, unquoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_PORT = 2379
_DEFAULT = "127.0.0.1:2379"
_FORM = "etcd://[USER:PASSWORD@]HOST:PORT,HOST:PORT/PREFIX?cacert=FILE"
# Each word of a URL's query, and the variable that is used where the URL doesn't have it.
_WORDS = {
    "cacert": "ETCDCTL_CACERT",
    "cert": "ETCDCTL_CERT",
    "key": "ETCDCTL_KEY",
    "server-name": "",
    "insecure-skip-tls-verify": "ETCDCTL_INSECURE_SKIP_TLS_VERIFY",
    "tls": "",
}
_YES, _NO = ("1", "t", "true"), ("", "0", "f", "false")


class Address:
    """An etcd cluster, and our login there. The constructor raises Refused (78).

    `endpoints` are (host, port, whether TLS is spoken). `prefix` comes before every lock's key: it is empty
    or ends in a slash. `user` is empty without login. `cacert`, `cert` and `key` are paths of files,
    `server_name` is the name that the server's certificate must have; each is empty where it wasn't given.
    `insecure`: the certificate is not checked.
    """

    __slots__ = (
        "cacert",
        "cert",
        "endpoints",
        "insecure",
        "key",
        "password",
        "prefix",
        "server_name",
        "user",
    )

    def __init__(self, url: str, environ: Mapping[str, str]) -> None:
        try:
            _, login, places, path, query = parts(url)
        except ValueError as error:
            refuse(f"{url.partition('://')[0]}://…: {error}")
        words = _words(query, environ)
        self.cacert, self.cert, self.key = (words[word] for word in ("cacert", "cert", "key"))
        self.server_name = words["server-name"]
        self.insecure = _truth("insecure-skip-tls-verify", words["insecure-skip-tls-verify"])
        if self.key and not self.cert:
            refuse("a client's key was given without its certificate: give both (ETCDCTL_CERT, ETCDCTL_KEY)")
        asks = bool(self.cacert or self.cert or self.server_name or self.insecure)
        tls = _truth("tls", words["tls"]) if words["tls"] else asks
        self.endpoints = _endpoints(places, environ, tls=tls)
        self.user, self.password = _login(login, environ)
        self.prefix = _prefix(path)


def _unquoted(text: str) -> str:
    try:
        return unquoted(text)
    except ValueError as error:
        refuse(f"in the address of etcd {error}")


def _words(query: str, environ: Mapping[str, str]) -> dict[str, str]:
    variables = {word: environ.get(variable, "") if variable else "" for word, variable in _WORDS.items()}
    try:
        return variables | options(query, _WORDS)
    except ValueError as error:
        refuse(f"in the address of etcd {error}")


def _truth(word: str, text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() not in _NO:
        refuse(f"{word} must be true or false")
    return False


def _endpoints(places: str, environ: Mapping[str, str], *, tls: bool) -> list[tuple[str, int, bool]]:
    if not places:
        places = environ.get("ETCDCTL_ENDPOINTS", "")
        if "@" in places:
            refuse("ETCDCTL_ENDPOINTS has a user or a password in it: give them in ETCDCTL_USER")
        if not places and environ.get("ETCDCTL_DISCOVERY_SRV"):
            refuse("ETCDCTL_DISCOVERY_SRV is not followed: name the servers in ETCDCTL_ENDPOINTS")
    found = []
    for place in (places or _DEFAULT).split(","):
        scheme, separator, rest = place.strip().rpartition("://")
        if separator and scheme not in ("http", "https"):
            refuse(f"etcd is not reached by {scheme}://: the form is {_FORM}")
        try:
            host, port = host_and_port(rest.rstrip("/") if separator else rest, _PORT)
        except ValueError as error:
            refuse(f"{error}: the form is {_FORM}")
        found.append((host, port, scheme == "https" if separator else tls))
    return found


def _login(login: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """User and password. As with etcdctl, the password of a user without a colon is in ETCDCTL_PASSWORD."""
    if login:
        user, colon, password = login.partition(":")
        user, password = _unquoted(user), _unquoted(password)
    else:
        user, colon, password = environ.get("ETCDCTL_USER", "").partition(":")
    if user and not colon:
        password = environ.get("ETCDCTL_PASSWORD", "")
        if not password:
            refuse(f"the etcd user {user!r} has no password: give it in ETCDCTL_PASSWORD")
    return user, password


def _prefix(path: str) -> str:
    prefix = _unquoted(path).strip("/")
    if prefix == "singleton-run" or prefix.startswith("singleton-run/"):
        refuse("the prefix singleton-run/ is where the records are: take another")
    return prefix + "/" if prefix else ""
