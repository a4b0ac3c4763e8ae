"""etcd by gRPC, through the stubs of python-etcd3.

For clusters whose JSON gateway is off, or that know a user by the name in a certificate. A thread of gRPC's
rings a bell when an answer has come, and we wait for the bell by our own clock. After a failure the channel
is closed, and the next endpoint is asked.
"""

from __future__ import annotations

import _thread
import os

from singleton_run.api import toolbox
from singleton_run.api.deadline import READ, Deadline, Interrupted, Timeout
from singleton_run.api.http.wire import Broken
from singleton_run.api.servers import in_turn, no_answer
from singleton_run.api.url import authority
from singleton_run.errors import UNUSABLE, Failure, Refused, Unavailable
from singleton_run_etcd.client import (
    DEADLINE_EXCEEDED,
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    NOT_FOUND,
    PERMISSION_DENIED,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    KeyValue,
    LeaseNotFound,
    Login,
    Member,
    Op,
    Outcome,
    ServerError,
)

# We tell errors ourselves. The messages of python-etcd3 are older than protobuf 4: only its implementation in
# Python still takes them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
try:
    import grpc
    from etcd3 import etcdrpc as rpc
except (ImportError, TypeError) as error:
    raise toolbox.missing_package("etcd+grpc", "etcd3", "etcd-grpc", error) from None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from singleton_run_etcd.address import Address
    from singleton_run_etcd.client import Compare

    Result = TypeVar("Result")
    Metadata = list[tuple[str, str]]

# A server that works answers these: another one would answer the same.
_ANSWERS = (
    INVALID_ARGUMENT,
    NOT_FOUND,
    PERMISSION_DENIED,
    FAILED_PRECONDITION,
    UNIMPLEMENTED,
    UNAUTHENTICATED,
)
# With it a member that has lost the others ends the watch, instead of being silent.
_NEEDS_LEADER = ("hasleader", "true")
# Words of gRPC's for a failure of TLS: OpenSSL's errors, and a certificate for another name.
_UNTRUSTED = ("SSL_ERROR_SSL", "is not in peer certificate", "Hostname Verification Check failed")
_OPTIONS = (
    # A new channel connects at once, and doesn't wait for the back-off of the channel before.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 1 << 26),
)


class _Bell:
    """A descriptor that another thread makes readable. It is closed when no thread can ring any more."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        os.close(self.descriptor)

    def ring(self, _call: object = None) -> None:
        """Make it readable."""
        os.eventfd_write(self.descriptor, 1)

    def wait(self, deadline: Deadline) -> None:
        """Wait until it was rung, and make it unreadable again. Raises Timeout, Interrupted."""
        deadline.wait(self.descriptor, READ)
        os.eventfd_read(self.descriptor)


class _Stream:
    """A call with messages both ways: we send one, and a thread reads those that come."""

    def __init__(self, method: Any, request: Any, metadata: Metadata, seconds: float | None) -> None:
        self._bell = _Bell()
        self._came: list[Any] = []
        self._open = _thread.allocate_lock()
        self._open.acquire()
        self._call = method(self._say(request), timeout=seconds, metadata=metadata)
        _thread.start_new_thread(self._read, ())

    def _say(self, request: Any) -> Iterator[Any]:
        yield request
        # The call ends when this returns: a proxy may end it for both sides.
        with self._open:
            return

    def _read(self) -> None:
        try:
            for message in self._call:
                self._came.append(message)
                self._bell.ring()
            end = ServerError(UNAVAILABLE, "the server ended the stream")
        except grpc.RpcError:
            end = _server_error(self._call)
        self._came.append(end)
        self._bell.ring()

    def next(self, deadline: Deadline) -> Any:
        """The next message. Raises ServerError at the end, Timeout, Interrupted."""
        while not self._came:
            self._bell.wait(deadline)
        if isinstance(self._came[0], ServerError):
            raise self._came[0]
        return self._came.pop(0)

    def close(self) -> None:
        """End the call. Never raises."""
        self._call.cancel()
        if self._open.locked():
            self._open.release()


class _Line:
    """A channel to one endpoint, and its stubs."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.kv = rpc.KVStub(channel)
        self.lease = rpc.LeaseStub(channel)
        self.watch = rpc.WatchStub(channel)
        self.auth = rpc.AuthStub(channel)
        self.maintenance = rpc.MaintenanceStub(channel)


class Grpc:
    """One cluster by gRPC. See `client.Server`. gRPC looks names up, for each new channel."""

    def __init__(self, address: Address) -> None:
        self._login = Login(address)
        self._endpoints = list(address.endpoints)
        self._server_name = address.server_name
        self._credentials = _credentials(address) if any(secure for _, _, secure in self._endpoints) else None
        self.line: _Line | None = None

    def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Op],
        otherwise: Sequence[Op],
        deadline: Deadline,
    ) -> Outcome:
        """See `client.Server`."""
        request = rpc.TxnRequest(
            compare=[_compare(*compare) for compare in compares],
            success=[_request_op(operation) for operation in then],
            failure=[_request_op(operation) for operation in otherwise],
        )
        try:
            answer = self._call(lambda line: line.kv.Txn, request, deadline, expected=NOT_FOUND)
        except ServerError:
            raise LeaseNotFound from None
        found = [_key_values(response.response_range) for response in answer.responses]
        return Outcome(answer.header.revision, found, succeeded=answer.succeeded)

    def range(self, look: Op, deadline: Deadline) -> tuple[list[KeyValue], int]:
        """See `client.Server`."""
        answer = self._call(lambda line: line.kv.Range, _request_op(look).request_range, deadline)
        return _key_values(answer), answer.header.revision

    def grant_lease(self, lease: int, ttl: int, deadline: Deadline) -> bool:
        """See `client.Server`."""
        request = rpc.LeaseGrantRequest(ID=lease, TTL=ttl)
        try:
            self._call(lambda line: line.lease.LeaseGrant, request, deadline, expected=FAILED_PRECONDITION)
        except ServerError:
            return False
        return True

    def keep_lease_alive(self, lease: int, deadline: Deadline) -> bool:
        """See `client.Server`."""
        request = rpc.LeaseKeepAliveRequest(ID=lease)

        def ask(line: _Line, share: Deadline) -> Any:
            stream = _Stream(line.lease.LeaseKeepAlive, request, self._metadata(), _seconds(share))
            try:
                return _told(request, lambda: stream.next(share))
            finally:
                stream.close()

        return bool(self._with_login(ask, deadline).TTL > 0)

    def time_to_live(self, lease: int, deadline: Deadline) -> int:
        """See `client.Server`."""
        request = rpc.LeaseTimeToLiveRequest(ID=lease)
        return max(0, int(self._call(lambda line: line.lease.LeaseTimeToLive, request, deadline).TTL))

    def revoke_lease(self, lease: int, deadline: Deadline) -> None:
        """See `client.Server`."""
        request = rpc.LeaseRevokeRequest(ID=lease)
        try:
            self._call(lambda line: line.lease.LeaseRevoke, request, deadline, expected=NOT_FOUND)
        except ServerError:
            return

    def watch(self, key: str, revision: int, deadline: Deadline, *, puts: bool = False) -> GrpcWatch:
        """See `client.Server`."""
        filters = [] if puts else [rpc.WatchCreateRequest.NOPUT]
        create = rpc.WatchCreateRequest(key=_encoded(key), start_revision=revision, filters=filters)
        request = rpc.WatchRequest(create_request=create)

        def ask(line: _Line, share: Deadline) -> GrpcWatch:
            metadata = [*self._metadata(), _NEEDS_LEADER]
            stream = _Stream(line.watch.Watch, request, metadata, None)
            return _told(create, lambda: GrpcWatch(self, line, stream, share))

        watch = self._with_login(ask, deadline)
        if watch.refused:
            # The reason is told in words only. A read of the same key tells it by code, and renews the token.
            self.txn([], [Op("range", key)], [], deadline)
            watch = self._with_login(ask, deadline)
        if watch.refused:
            raise Unavailable(f"etcd: {watch.refused}")
        return watch

    def status(self, deadline: Deadline) -> Member:
        """See `client.Server`. The messages of python-etcd3 are older than the list of errors."""
        answer = self._call(lambda line: line.maintenance.Status, rpc.StatusRequest(), deadline)
        return Member(answer.version, (), led=answer.leader != 0)

    def user(self) -> str:
        """See `client.Server`."""
        return self._login.user if self._login.token else ""

    def offset(self) -> tuple[float, float] | None:
        """None: no answer has the time in it."""
        return None

    def known(self) -> list[Any]:
        """See `client.Server`."""
        return []

    def recall(self, known: Any) -> None:
        """See `client.Server`."""

    def close(self) -> None:
        """See `client.Server`."""
        if self.line is not None:
            self.line.channel.close()
            self.line = None

    def _call(
        self, method: Callable[[_Line], Any], request: Any, deadline: Deadline, expected: int | None = None
    ) -> Any:
        def ask(line: _Line, share: Deadline) -> Any:
            return _answer(method(line), request, self._metadata(), share)

        return self._with_login(ask, deadline, expected)

    def _with_login(
        self, ask: Callable[[_Line, Deadline], Result], deadline: Deadline, expected: int | None = None
    ) -> Result:
        """Ask logged in. Raises ServerError for the `expected` code, and a Failure for every other."""

        def authenticate(user: str, password: str) -> str:
            request = rpc.AuthenticateRequest(name=user, password=password)
            answer = self._anywhere(
                lambda line, share: _answer(line.auth.Authenticate, request, [], share), deadline
            )
            return str(answer.token)

        try:
            return self._login.during(lambda: self._anywhere(ask, deadline), authenticate)
        except ServerError as error:
            if error.code == expected:
                raise
            raise self._failure(error) from None

    def _anywhere(self, ask: Callable[[_Line, Deadline], Result], deadline: Deadline) -> Result:
        """Ask at one endpoint after the other, each with its share of the time left."""
        failures: dict[str, Exception] = {}
        for (host, port, secure), share in in_turn(self._endpoints, deadline):
            if self.line is None:
                self.line = _Line(self._channel(host, port, secure))
            try:
                return ask(self.line, share)
            except (Timeout, ServerError) as error:
                if isinstance(error, ServerError) and error.code in _ANSWERS:
                    raise
                failures[authority(host, port)] = error
            self.close()
        if all(_is_untrusted(failure) for failure in failures.values()):
            raise no_answer("etcd: the certificate is not trusted, or ours isn't", failures, untrusted=True)
        raise no_answer("etcd", failures)

    def _channel(self, host: str, port: int, secure: bool) -> Any:
        target = f"dns:///{authority(host, port)}"
        if not secure:
            return grpc.insecure_channel(target, [*_OPTIONS, ("grpc.enable_http_proxy", 0)])
        options = [*_OPTIONS, _proxy(host, port)]
        if self._server_name:
            options.append(("grpc.ssl_target_name_override", self._server_name))
        return grpc.secure_channel(target, self._credentials, options)

    def _metadata(self) -> Metadata:
        return [("token", self._login.token)] if self._login.token else []

    def _failure(self, error: ServerError) -> Failure:
        if error.code == UNIMPLEMENTED:
            return Refused(f"what answers is not etcd ({error}): check host, port", UNUSABLE)
        known = ": if it knows users, name one (ETCDCTL_USER=USER:PASSWORD) or use a certificate in its name"
        return error.failure("" if self._login.user else known)


class GrpcWatch:
    """A watch on a channel. See `client.Watch`. `refused` is the server's reason not to make it, or empty."""

    def __init__(self, server: Grpc, line: _Line, stream: _Stream, deadline: Deadline) -> None:
        self._server = server
        self._line = line
        self._stream = stream
        self.refused = ""
        try:
            first = stream.next(deadline)
        except BaseException:
            stream.close()
            raise
        # Canceled because the revision was compacted: the waiter looks at the queue again.
        self._over = bool(first.canceled)
        if first.canceled and not first.compact_revision:
            self.refused = first.cancel_reason or "the watch was canceled"
            stream.close()

    def wait(self, deadline: Deadline) -> None:
        """See `client.Watch`."""
        while not self._over:
            try:
                answer = self._stream.next(deadline)
            except ServerError as error:
                raise Broken(str(error)) from None
            if answer.canceled and not answer.compact_revision:
                raise Broken(answer.cancel_reason or "the watch was canceled")
            self._over = bool(answer.canceled or answer.events)

    def is_current(self) -> bool:
        """See `client.Watch`."""
        return self._line is self._server.line

    def close(self) -> None:
        """See `client.Watch`."""
        self._stream.close()


def _answer(method: Any, request: Any, metadata: Metadata, deadline: Deadline) -> Any:
    """The answer to a call. Raises ServerError, Timeout, Interrupted."""
    return _told(request, lambda: _awaited(method, request, metadata, deadline))


def _told(request: Any, work: Callable[[], Result]) -> Result:
    """Do `work`, which sends `request`, and have the trace tell of it."""
    return toolbox.request(work, type(request).__name__, lambda: _key(request), lambda _: "OK")


def _key(request: Any) -> str:
    """The key that a request is about, or its lease's id; empty for a login."""
    if isinstance(request, rpc.TxnRequest):
        operations = [*request.compare, *(operation.request_range for operation in request.success)]
        request = operations[0]
    return _decoded(request.key) if hasattr(request, "key") else str(getattr(request, "ID", ""))


def _awaited(method: Any, request: Any, metadata: Metadata, deadline: Deadline) -> Any:
    bell = _Bell()
    call = method.future(request, timeout=_seconds(deadline), metadata=metadata)
    call.add_done_callback(bell.ring)
    try:
        bell.wait(deadline)
    except (Timeout, Interrupted):
        call.cancel()
        raise
    if call.code() != grpc.StatusCode.OK:
        raise _server_error(call)
    return call.result()


def _server_error(call: Any) -> ServerError:
    """The error of a call that ended without an answer."""
    code, name = call.code().value
    if code == DEADLINE_EXCEEDED:
        return ServerError(code, "no answer in time")
    return ServerError(code, " ".join((call.details() or name).split()))


def _is_untrusted(failure: Exception) -> bool:
    """Whether TLS failed for good, which gRPC tells by words alone."""
    return any(words in str(failure) for words in _UNTRUSTED)


def _seconds(deadline: Deadline) -> float:
    """The seconds left, after which the server need not answer any more."""
    return max(0.0, deadline.until - toolbox.now())


def _credentials(address: Address) -> Any:
    if address.insecure:
        raise Refused(
            "gRPC can't leave a certificate unchecked: give its authority (cacert, ETCDCTL_CACERT), or use etcd://",
            UNUSABLE,
        )
    from singleton_run.api.http.tls import Tls

    # It tells the fault of a file; gRPC doesn't.
    Tls(address.cacert, address.cert, address.key)
    key = (address.key or address.cert) if address.cert else ""
    authorities = address.cacert or _system_authorities()
    return grpc.ssl_channel_credentials(_content(authorities), _content(key), _content(address.cert))


def _system_authorities() -> str:
    """The file of the authorities that OpenSSL trusts; empty where there is none, and gRPC takes its own."""
    from ssl import get_default_verify_paths

    paths = get_default_verify_paths()
    bundle = f"{paths.capath}/ca-certificates.crt"
    return paths.cafile or (bundle if os.path.exists(bundle) else "")


def _content(path: str) -> bytes | None:
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


def _proxy(host: str, port: int) -> tuple[str, Any]:
    """GRPC's option for the proxy on the way to the host, or for none."""
    from singleton_run.api.http.proxy import choose

    if choose(host, port, os.environ) is None:
        return "grpc.enable_http_proxy", 0
    url = os.environ.get("HTTPS_PROXY") or os.environ["https_proxy"]
    return "grpc.http_proxy", url if "://" in url else f"http://{url}"


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _decoded(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def _compare(what: str, key: str, value: Any) -> Any:
    compare = rpc.Compare(key=_encoded(key))
    if what == "create":
        compare.target, compare.result = rpc.Compare.CREATE, rpc.Compare.EQUAL
        compare.create_revision = value
    elif what == "modified":
        compare.target, compare.result = rpc.Compare.MOD, rpc.Compare.EQUAL
        compare.mod_revision = value
    else:
        compare.target, compare.result = rpc.Compare.VALUE, rpc.Compare.LESS
        compare.value = _encoded(value)
    return compare


def _request_op(operation: Op) -> Any:
    key = _encoded(operation.key)
    if operation.kind == "put":
        put = rpc.PutRequest(key=key, value=_encoded(operation.value), lease=operation.lease)
        return rpc.RequestOp(request_put=put)
    if operation.kind == "touch":
        return rpc.RequestOp(request_put=rpc.PutRequest(key=key, ignore_value=True, ignore_lease=True))
    if operation.kind == "delete":
        return rpc.RequestOp(request_delete_range=rpc.DeleteRangeRequest(key=key))
    look = rpc.RangeRequest(key=key)
    if operation.end:
        look.range_end = _encoded(operation.end)
        look.sort_target = rpc.RangeRequest.CREATE
        look.sort_order = rpc.RangeRequest.DESCEND if operation.newest else rpc.RangeRequest.ASCEND
        look.limit = operation.limit
        look.max_create_revision = operation.before
        look.keys_only = operation.keys_only
    return rpc.RequestOp(request_range=look)


def _key_values(found: Any) -> list[KeyValue]:
    return [
        KeyValue(_decoded(kv.key), _decoded(kv.value), kv.create_revision, kv.mod_revision, kv.lease)
        for kv in found.kvs
    ]
