"""etcd by its JSON gateway: each operation is a POST, bytes are base64, 64-bit numbers are text.

A user logs in once; when the token has come to its end, again. See `server.Server`.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from singleton_run.api import toolbox
from singleton_run.api.deadline import Late, Woken
from singleton_run.api.http.client import Client, Endpoint, proxy_to
from singleton_run.api.http.connection import Broken
from singleton_run.errors import UNUSABLE, Failure, Refused, Unavailable
from singleton_run_etcd.client import (
    DENIED,
    NOT_FOUND,
    PRECONDITION,
    UNKNOWN,
    Entry,
    Login,
    NoLease,
    Outcome,
    Rejected,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from singleton_run.api.deadline import Patience
    from singleton_run.api.http.client import Stream
    from singleton_run.api.http.connection import Answer
    from singleton_run.api.http.tls import Tls
    from singleton_run_etcd.address import Address
    from singleton_run_etcd.client import Compare, Operation

    Body = dict[str, Any]
    Result = TypeVar("Result")

# A member that has lost the others ends the watch, instead of being silent.
_NEEDS_LEADER = {"Grpc-Metadata-hasleader": "true"}

_CHECK = "check host, port"


class Gateway:
    """One cluster by its gateway. See `server.Server`."""

    def __init__(self, address: Address, environ: Mapping[str, str]) -> None:
        self._login = Login(address)
        self._certificate = bool(address.cert)
        self._client = Client("etcd", _endpoints(address, environ))
        self._told = "", 0.0, 0.0

    def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Operation],
        otherwise: Sequence[Operation],
        patience: Patience,
    ) -> Outcome:
        """See `server.Server`."""
        body = {
            "compare": [_compare(*compare) for compare in compares],
            "success": [_operation(operation) for operation in then],
            "failure": [_operation(operation) for operation in otherwise],
        }
        try:
            key = compares[0][1] if compares else then[0].key
            answer = self._call("/v3/kv/txn", key, body, patience, expected=NOT_FOUND)
        except Rejected:
            raise NoLease from None
        outcome = _sense(lambda: _outcome(answer))
        # Without compares they all hold; and there is an answer to each question.
        if len(outcome.found) != len(then if outcome.held else otherwise) or not (compares or outcome.held):
            raise _nonsense()
        return outcome

    def range(self, look: Operation, patience: Patience) -> tuple[list[Entry], int]:
        """See `server.Server`."""
        answer = self._call("/v3/kv/range", look.key, _operation(look)["request_range"], patience)
        return _sense(lambda: (_entries(answer), int(answer["header"]["revision"])))

    def grant(self, lease: int, ttl: int, patience: Patience) -> bool:
        """See `server.Server`."""
        body = {"ID": str(lease), "TTL": str(ttl)}
        try:
            self._call("/v3/lease/grant", body["ID"], body, patience, expected=PRECONDITION)
        except Rejected:
            return False
        return True

    def keep_alive(self, lease: int, patience: Patience) -> bool:
        """See `server.Server`."""
        body = {"ID": str(lease)}
        answer = self._call("/v3/lease/keepalive", body["ID"], body, patience)
        return _sense(lambda: int(answer.get("result", {}).get("TTL", 0))) > 0

    def left(self, lease: int, patience: Patience) -> int:
        """See `server.Server`."""
        body = {"ID": str(lease)}
        answer = self._call("/v3/lease/timetolive", body["ID"], body, patience)
        return _sense(lambda: max(0, int(answer.get("TTL", 0))))

    def revoke(self, lease: int, patience: Patience) -> None:
        """See `server.Server`."""
        body = {"ID": str(lease)}
        try:
            self._call("/v3/lease/revoke", body["ID"], body, patience, expected=NOT_FOUND)
        except Rejected:
            return

    def watch(self, key: str, revision: int, patience: Patience) -> GatewayWatch:
        """See `server.Server`."""
        request = {"key": _encoded(key), "start_revision": str(revision), "filters": ["NOPUT"]}
        body = toolbox.dumps({"create_request": request}).encode()
        return self._with_login(lambda: self._open_watch(key, body, patience), patience)

    def _open_watch(self, key: str, body: bytes, patience: Patience) -> GatewayWatch:
        headers = {**self._headers(), **_NEEDS_LEADER}
        stream = self._client.stream("POST", "/v3/watch", headers, body, patience, key)
        try:
            if stream.status != 200:
                raise _rejected(stream.answer, certificate=self._certificate)
            return GatewayWatch(self._client, stream, patience)
        except (Broken, Late) as error:
            stream.close()
            raise Unavailable(f"etcd: {error}") from None
        except (Failure, Woken, Rejected):
            stream.close()
            raise

    def offset(self) -> tuple[float, float] | None:
        """See `server.Server`."""
        from singleton_run.api.http.date import ahead

        return ahead(*self._told)

    def known(self) -> list[Any]:
        """See `server.Server`."""
        return self._client.known()

    def recall(self, known: Any) -> None:
        """See `server.Server`."""
        self._client.recall(known)

    def close(self) -> None:
        """See `server.Server`."""
        self._client.close()

    def _call(self, path: str, key: str, body: Body, patience: Patience, expected: int | None = None) -> Body:
        """The answer to a request about `key`, which may be a lease's id. Raises as `_with_login`."""
        return self._with_login(lambda: self._post(path, key, body, patience), patience, expected)

    def _with_login(
        self, work: Callable[[], Result], patience: Patience, expected: int | None = None
    ) -> Result:
        """Do `work` logged in. Raises Failure for a no, but Rejected for the one that is expected."""

        def authenticate(user: str, password: str) -> str:
            body = {"name": user, "password": password}
            token = str(self._post("/v3/auth/authenticate", "", body, patience).get("token", ""))
            if not (token.isascii() and token.isprintable()):
                raise _nonsense()
            return token

        try:
            return self._login.during(work, authenticate)
        except Rejected as rejected:
            if rejected.code == expected:
                raise
            raise self._failure(rejected) from None

    def _post(self, path: str, key: str, body: Body, patience: Patience) -> Body:
        data = toolbox.dumps(body).encode()
        sent = toolbox.now()
        answer = self._client.request("POST", path, self._headers(), data, patience, key)
        self._told = answer.headers.get("date", ""), sent, toolbox.now()
        if answer.status != 200:
            raise _rejected(answer, certificate=self._certificate)
        result = _object(answer.body)
        if "error" in result:
            raise _in_stream(result["error"])
        return result

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._login.token} if self._login.token else {}

    def _failure(self, rejected: Rejected) -> Failure:
        if self._login.user:
            return rejected.failure("")
        advice = ": if it knows users, name one (ETCDCTL_USER=USER:PASSWORD)"
        if self._certificate:
            advice += "; one that is known by its certificate needs etcd+grpc://"
        return rejected.failure(advice)


class GatewayWatch:
    """A watch by the gateway, which says of every answer in one line. See `server.Watch`."""

    def __init__(self, client: Client, stream: Stream, patience: Patience) -> None:
        self._client = client
        self._stream = stream
        result = self._result(patience)
        self._over = "canceled" in result

    def wait(self, patience: Patience) -> None:
        """See `server.Watch`."""
        while not self._over:
            try:
                result = self._result(patience)
            except Rejected as rejected:
                raise Broken(str(rejected)) from None
            # Canceled means, here, that the revision is gone from the history: whoever waits looks again.
            self._over = "canceled" in result or bool(result.get("events"))

    def stands(self) -> bool:
        """See `server.Watch`."""
        return self._stream.route == self._client.route

    def close(self) -> None:
        """See `server.Watch`."""
        self._stream.close()

    def _result(self, patience: Patience) -> Body:
        line = b""
        while not line:
            line = self._stream.line(patience)
        answer = _object(line)
        if "error" in answer:
            raise _in_stream(answer["error"])
        result: Body = answer.get("result", {})
        if not isinstance(result, dict):
            raise _nonsense()
        if "canceled" in result and "compact_revision" not in result:
            # At its start for want of permission, the one thing that is looked at then.
            raise Rejected(DENIED, result.get("cancel_reason") or "the watch was canceled")
        return result


def _endpoints(address: Address, environ: Mapping[str, str]) -> list[Endpoint]:
    tls = _tls(address) if any(secure for _, _, secure in address.endpoints) else None
    return [
        Endpoint(host, port, tls, proxy_to(host, port, environ)) if secure else Endpoint(host, port)
        for host, port, secure in address.endpoints
    ]


def _tls(address: Address) -> Tls:
    from singleton_run.api.http.tls import Tls

    return Tls(address.cacert, address.cert, address.key, address.server_name, insecure=address.insecure)


def _encoded(text: str) -> str:
    return b2a_base64(text.encode(errors="surrogateescape"), newline=False).decode()


def _decoded(text: str) -> str:
    return a2b_base64(text).decode(errors="surrogateescape")


def _compare(what: str, key: str, value: Any) -> Body:
    if what == "create":
        return {"key": _encoded(key), "target": "CREATE", "result": "EQUAL", "create_revision": str(value)}
    return {"key": _encoded(key), "target": "VALUE", "result": "LESS", "value": _encoded(value)}


def _operation(operation: Operation) -> Body:
    body: Body = {"key": _encoded(operation.key)}
    if operation.kind == "put":
        body["value"] = _encoded(operation.value)
        body["lease"] = str(operation.lease)
        return {"request_put": body}
    if operation.kind == "delete":
        return {"request_delete_range": body}
    if operation.end:
        body["range_end"] = _encoded(operation.end)
        body["sort_target"] = "CREATE"
        body["sort_order"] = "DESCEND" if operation.newest else "ASCEND"
        body["limit"] = str(operation.limit)
        body["max_create_revision"] = str(operation.before)
        body["keys_only"] = operation.keys_only
    return {"request_range": body}


def _entries(found: Body) -> list[Entry]:
    return [
        Entry(
            _decoded(entry["key"]),
            _decoded(entry.get("value", "")),
            int(entry["create_revision"]),
            int(entry.get("lease", 0)),
        )
        for entry in found.get("kvs", ())
    ]


def _outcome(answer: Body) -> Outcome:
    found = [_entries(response.get("response_range", {})) for response in answer.get("responses", ())]
    return Outcome(int(answer["header"]["revision"]), found, held=bool(answer.get("succeeded", False)))


def _sense(read: Callable[[], Result]) -> Result:
    """What `read` takes from an answer. Raises Refused for an answer that etcd doesn't give."""
    try:
        return read()
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError):
        raise _nonsense() from None


def _nonsense() -> Refused:
    return Refused(f"what answers is not etcd's JSON gateway: {_CHECK}, or use etcd+grpc://", UNUSABLE)


def _object(data: bytes) -> Body:
    try:
        value = toolbox.loads(data.decode())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _nonsense()
    return value


def _rejected(answer: Answer, *, certificate: bool) -> Rejected:
    """The gateway's no. Raises Failure if it isn't the gateway that says no."""
    try:
        said = toolbox.loads(answer.body.decode())
        return Rejected(int(said["code"]), str(said.get("message") or said.get("error")))
    except (ValueError, LookupError, TypeError, ArithmeticError):
        pass
    if answer.status == 404:
        raise Refused("etcd answers 404: its JSON gateway is switched off, so use etcd+grpc://", UNUSABLE)
    text = f"etcd answers {answer.status} ({answer.body[:100].decode(errors='replace').strip()!r})"
    if answer.status not in range(400, 500):
        raise Unavailable(text)
    if certificate:
        # To a server that knows users by their certificates the gateway lets none of these in.
        raise Refused(f"{text}: a user with a certificate in its name needs etcd+grpc://", UNUSABLE)
    raise Refused(f"{text}: {_CHECK} and whether TLS is spoken", UNUSABLE)


def _in_stream(error: Any) -> Rejected:
    """The same in an answer that had begun with 200."""
    if isinstance(error, dict):
        code = error.get("grpc_code", error.get("code"))
        return Rejected(code if isinstance(code, int) else UNKNOWN, str(error.get("message", "")))
    return Rejected(UNKNOWN, str(error))
