"""etcd by its JSON gateway: each request is a POST, bytes are base64, and 64-bit numbers are text."""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64

from singleton_run.api import toolbox
from singleton_run.api.deadline import Interrupted, Timeout
from singleton_run.api.http.client import Client, Endpoint, proxy_to
from singleton_run.api.http.wire import Broken
from singleton_run.api.servers import ServerClock, no_answer
from singleton_run.errors import UNUSABLE, Failure, Refused, Unavailable
from singleton_run_etcd.client import (
    FAILED_PRECONDITION,
    NOT_FOUND,
    PERMISSION_DENIED,
    UNKNOWN,
    KeyValue,
    LeaseNotFound,
    Login,
    Member,
    Outcome,
    ServerError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.client import Stream
    from singleton_run.api.http.connection import Answer
    from singleton_run.api.http.tls import Tls
    from singleton_run_etcd.address import Address
    from singleton_run_etcd.client import Compare, Op

    Body = dict[str, Any]
    Result = TypeVar("Result")

# With it a member that has lost the others ends the watch, instead of being silent.
_NEEDS_LEADER = {"Grpc-Metadata-hasleader": "true"}

_CHECK = "check host, port"


class Gateway:
    """One cluster by its gateway. See `client.Server`."""

    def __init__(self, address: Address, environ: Mapping[str, str]) -> None:
        self._login = Login(address)
        self._certificate = bool(address.cert)
        self._client = Client("etcd", _endpoints(address, environ))
        self._clock = ServerClock()

    def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Op],
        otherwise: Sequence[Op],
        deadline: Deadline,
    ) -> Outcome:
        """See `client.Server`."""
        body = {
            "compare": [_compare(*compare) for compare in compares],
            "success": [_request_op(operation) for operation in then],
            "failure": [_request_op(operation) for operation in otherwise],
        }
        try:
            key = compares[0][1] if compares else then[0].key
            answer = self._call("/v3/kv/txn", key, body, deadline, expected=NOT_FOUND)
        except ServerError:
            raise LeaseNotFound from None
        outcome = _checked(lambda: _outcome(answer))
        # Without compares it succeeds, and every operation has an answer: else it isn't etcd.
        asked = then if outcome.succeeded else otherwise
        if len(outcome.found) != len(asked) or not (compares or outcome.succeeded):
            raise _not_etcd()
        return outcome

    def range(self, look: Op, deadline: Deadline) -> tuple[list[KeyValue], int]:
        """See `client.Server`."""
        answer = self._call("/v3/kv/range", look.key, _request_op(look)["request_range"], deadline)
        return _checked(lambda: (_key_values(answer), int(answer["header"]["revision"])))

    def grant_lease(self, lease: int, ttl: int, deadline: Deadline) -> bool:
        """See `client.Server`."""
        body = {"ID": str(lease), "TTL": str(ttl)}
        try:
            self._call("/v3/lease/grant", body["ID"], body, deadline, expected=FAILED_PRECONDITION)
        except ServerError:
            return False
        return True

    def keep_lease_alive(self, lease: int, deadline: Deadline) -> bool:
        """See `client.Server`."""
        body = {"ID": str(lease)}
        answer = self._call("/v3/lease/keepalive", body["ID"], body, deadline)
        return _checked(lambda: int(answer.get("result", {}).get("TTL", 0))) > 0

    def time_to_live(self, lease: int, deadline: Deadline) -> int:
        """See `client.Server`."""
        body = {"ID": str(lease)}
        answer = self._call("/v3/lease/timetolive", body["ID"], body, deadline)
        return _checked(lambda: max(0, int(answer.get("TTL", 0))))

    def revoke_lease(self, lease: int, deadline: Deadline) -> None:
        """See `client.Server`."""
        body = {"ID": str(lease)}
        try:
            self._call("/v3/lease/revoke", body["ID"], body, deadline, expected=NOT_FOUND)
        except ServerError:
            return

    def watch(self, key: str, revision: int, deadline: Deadline, *, puts: bool = False) -> GatewayWatch:
        """See `client.Server`."""
        filters = [] if puts else ["NOPUT"]
        request = {"key": _encoded(key), "start_revision": str(revision), "filters": filters}
        body = toolbox.dumps({"create_request": request}).encode()
        return self._with_login(lambda: self._open_watch(key, body, deadline), deadline)

    def _open_watch(self, key: str, body: bytes, deadline: Deadline) -> GatewayWatch:
        headers = {**self._headers(), **_NEEDS_LEADER}
        stream = self._client.stream("POST", "/v3/watch", headers, body, deadline, key)
        try:
            if stream.status != 200:
                raise _server_error(stream.answer, certificate=self._certificate)
            return GatewayWatch(self._client, stream, deadline)
        except (Broken, Timeout) as error:
            stream.close()
            raise no_answer("etcd", {stream.route[0].name: error}) from None
        except (Failure, Interrupted, ServerError):
            stream.close()
            raise

    def status(self, deadline: Deadline) -> Member:
        """See `client.Server`."""
        answer = self._call("/v3/maintenance/status", "", {}, deadline)
        return _checked(lambda: _member(answer))

    def user(self) -> str:
        """See `client.Server`."""
        return self._login.user if self._login.token else ""

    def offset(self) -> tuple[float, float] | None:
        """See `client.Server`."""
        return self._clock.offset()

    def known(self) -> list[Any]:
        """See `client.Server`."""
        return self._client.known()

    def recall(self, known: Any) -> None:
        """See `client.Server`."""
        self._client.recall(known)

    def close(self) -> None:
        """See `client.Server`."""
        self._client.close()

    def _call(self, path: str, key: str, body: Body, deadline: Deadline, expected: int | None = None) -> Body:
        """The answer to a request about `key`, which may be a lease's id. Raises as `_with_login`."""
        return self._with_login(lambda: self._post(path, key, body, deadline), deadline, expected)

    def _with_login(
        self, work: Callable[[], Result], deadline: Deadline, expected: int | None = None
    ) -> Result:
        """Do `work` logged in. Raises ServerError for the `expected` code, and a Failure for every other."""

        def authenticate(user: str, password: str) -> str:
            body = {"name": user, "password": password}
            token = str(self._post("/v3/auth/authenticate", "", body, deadline).get("token", ""))
            if not (token.isascii() and token.isprintable()):
                raise _not_etcd()
            return token

        try:
            return self._login.during(work, authenticate)
        except ServerError as error:
            if error.code == expected:
                raise
            raise self._failure(error) from None

    def _post(self, path: str, key: str, body: Body, deadline: Deadline) -> Body:
        data = toolbox.dumps(body).encode()
        sent = toolbox.now()
        answer = self._client.request("POST", path, self._headers(), data, deadline, key)
        self._clock.read(answer.headers.get("date"), sent, toolbox.now())
        if answer.status != 200:
            raise _server_error(answer, certificate=self._certificate)
        result = _object(answer.body)
        if "error" in result:
            raise _in_stream(result["error"])
        return result

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._login.token} if self._login.token else {}

    def _failure(self, error: ServerError) -> Failure:
        if self._login.user:
            return error.failure("")
        advice = ": if it knows users, name one (ETCDCTL_USER=USER:PASSWORD)"
        if self._certificate:
            advice += "; one that is known by its certificate needs etcd+grpc://"
        return error.failure(advice)


class GatewayWatch:
    """A watch by the gateway, which answers each event in a line of its own. See `client.Watch`."""

    def __init__(self, client: Client, stream: Stream, deadline: Deadline) -> None:
        self._client = client
        self._stream = stream
        result = self._result(deadline)
        self._over = "canceled" in result

    def wait(self, deadline: Deadline) -> None:
        """See `client.Watch`."""
        while not self._over:
            try:
                result = self._result(deadline)
            except ServerError as error:
                raise Broken(str(error)) from None
            # Canceled here means that the revision was compacted: the waiter looks at the queue again.
            self._over = "canceled" in result or bool(result.get("events"))

    def is_current(self) -> bool:
        """See `client.Watch`."""
        return self._stream.route == self._client.route

    def close(self) -> None:
        """See `client.Watch`."""
        self._stream.close()

    def _result(self, deadline: Deadline) -> Body:
        line = b""
        while not line:
            line = self._stream.line(deadline)
        answer = _object(line)
        if "error" in answer:
            raise _in_stream(answer["error"])
        result: Body = answer.get("result", {})
        if not isinstance(result, dict):
            raise _not_etcd()
        if "canceled" in result and "compact_revision" not in result:
            # At the beginning of a watch the reason is a missing permission.
            raise ServerError(PERMISSION_DENIED, result.get("cancel_reason") or "the watch was canceled")
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
    if what == "modified":
        return {"key": _encoded(key), "target": "MOD", "result": "EQUAL", "mod_revision": str(value)}
    return {"key": _encoded(key), "target": "VALUE", "result": "LESS", "value": _encoded(value)}


def _request_op(operation: Op) -> Body:
    body: Body = {"key": _encoded(operation.key)}
    if operation.kind == "put":
        body["value"] = _encoded(operation.value)
        body["lease"] = str(operation.lease)
        return {"request_put": body}
    if operation.kind == "touch":
        return {"request_put": {**body, "ignore_value": True, "ignore_lease": True}}
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


def _key_values(found: Body) -> list[KeyValue]:
    return [
        KeyValue(
            _decoded(entry["key"]),
            _decoded(entry.get("value", "")),
            int(entry["create_revision"]),
            int(entry["mod_revision"]),
            int(entry.get("lease", 0)),
        )
        for entry in found.get("kvs", ())
    ]


def _member(answer: Body) -> Member:
    led = int(answer.get("leader", 0)) != 0
    return Member(str(answer["version"]), [str(error) for error in answer.get("errors", ())], led=led)


def _outcome(answer: Body) -> Outcome:
    found = [_key_values(response.get("response_range", {})) for response in answer.get("responses", ())]
    return Outcome(int(answer["header"]["revision"]), found, succeeded=bool(answer.get("succeeded", False)))


def _checked(read: Callable[[], Result]) -> Result:
    """The value that `read` takes from an answer. Raises Refused (78) for an answer that isn't etcd's."""
    try:
        return read()
    except (AttributeError, LookupError, TypeError, ValueError, ArithmeticError):
        raise _not_etcd() from None


def _not_etcd() -> Refused:
    return Refused(f"what answers is not etcd's JSON gateway: {_CHECK}, or use etcd+grpc://", UNUSABLE)


def _object(data: bytes) -> Body:
    try:
        value = toolbox.loads(data.decode())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise _not_etcd()
    return value


def _server_error(answer: Answer, *, certificate: bool) -> ServerError:
    """The gateway's error. Raises a Failure where the answer isn't the gateway's."""
    try:
        said = toolbox.loads(answer.body.decode())
        if isinstance(said.get("error"), dict):  # since 3.6, where an answer is a stream's: a keep-alive's
            said = said["error"]
        return ServerError(int(said["code"]), str(said.get("message") or said.get("error")))
    except (ValueError, LookupError, TypeError, ArithmeticError, AttributeError):
        pass
    if answer.status == 404:
        raise Refused("etcd answers 404: its JSON gateway is switched off, so use etcd+grpc://", UNUSABLE)
    text = f"etcd answers {answer.status} ({answer.body[:100].decode(errors='replace').strip()!r})"
    if answer.status not in range(400, 500):
        raise Unavailable(text)
    if certificate:
        # The gateway doesn't pass a client's certificate on to a server that knows users by it.
        raise Refused(f"{text}: a user with a certificate in its name needs etcd+grpc://", UNUSABLE)
    raise Refused(f"{text}: {_CHECK} and whether TLS is spoken", UNUSABLE)


def _in_stream(error: Any) -> ServerError:
    """The server's error inside an answer of status 200."""
    if isinstance(error, dict):
        code = error.get("grpc_code", error.get("code"))
        return ServerError(code if isinstance(code, int) else UNKNOWN, str(error.get("message", "")))
    return ServerError(UNKNOWN, str(error))
