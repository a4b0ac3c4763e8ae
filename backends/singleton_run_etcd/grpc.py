"""etcd by gRPC, through the stubs of python-etcd3.

For clusters whose JSON gateway is off, or that know a user by the name in a certificate. A call is
begun, a thread of gRPC's rings a bell when there is an answer, and we wait for the bell by our own
clock. A channel that failed is dropped, and the next endpoint is asked.
"""

from __future__ import annotations

import _thread
import os

from singleton_run.api import toolbox
from singleton_run.api.deadline import READ, Late, Patience, Woken
from singleton_run.api.http.connection import Broken
from singleton_run.errors import UNUSABLE, Failure, Refused, Unavailable
from singleton_run_etcd.client import (
    DENIED,
    INVALID,
    LATE,
    NOT_FOUND,
    PRECONDITION,
    UNAUTHENTICATED,
    UNAVAILABLE,
    UNIMPLEMENTED,
    Entry,
    Login,
    NoLease,
    Operation,
    Outcome,
    Rejected,
)

# What goes wrong is told by us. And the messages of python-etcd3 are older than the compiled
# protobuf from version 4 on: only the one in Python still takes them.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
try:
    import grpc
    from etcd3 import etcdrpc as rpc
except (ImportError, TypeError) as error:
    why = str(error).partition("\n")[0]
    raise Refused(
        f"etcd+grpc needs the package etcd3 ({why}): pip install 'singleton-run[etcd-grpc]'", UNUSABLE
    ) from None

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from singleton_run_etcd.address import Address
    from singleton_run_etcd.client import Compare

    Result = TypeVar("Result")
    Metadata = list[tuple[str, str]]

# With these a server that is well has answered: another would say the same.
_ANSWERS = (INVALID, NOT_FOUND, DENIED, PRECONDITION, UNIMPLEMENTED, UNAUTHENTICATED)
# A member that has lost the others ends the watch, instead of being silent.
_NEEDS_LEADER = ("hasleader", "true")
# What it says where TLS fails: for a certificate or another fault of OpenSSL's, and for another name.
_UNTRUSTED = ("SSL_ERROR_SSL", "is not in peer certificate", "Hostname Verification Check failed")
_OPTIONS = (
    # A new channel is a new attempt to connect, and doesn't wait for the back-off of the one before.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 1 << 26),
)


class _Bell:
    """A descriptor that another thread makes readable. It is closed when nobody can ring any more."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        os.close(self.descriptor)

    def ring(self, _call: object = None) -> None:
        """Make it readable."""
        os.eventfd_write(self.descriptor, 1)

    def wait(self, patience: Patience) -> None:
        """Wait until it was rung, and take that back. Raises Late, Woken."""
        patience.wait(self.descriptor, READ)
        os.eventfd_read(self.descriptor)


class _Stream:
    """A call with messages both ways, of which we send the first; a thread reads what comes."""

    def __init__(self, method: Any, request: Any, metadata: Metadata, seconds: float | None) -> None:
        self._bell = _Bell()
        self._came: list[Any] = []
        self._open = _thread.allocate_lock()
        self._open.acquire()
        self._call = method(self._say(request), timeout=seconds, metadata=metadata)
        _thread.start_new_thread(self._read, ())

    def _say(self, request: Any) -> Iterator[Any]:
        yield request
        # A proxy may take it for the end of the call if we have no more to say.
        with self._open:
            return

    def _read(self) -> None:
        try:
            for message in self._call:
                self._came.append(message)
                self._bell.ring()
            end = Rejected(UNAVAILABLE, "the server ended the stream")
        except grpc.RpcError:
            end = _rejected(self._call)
        self._came.append(end)
        self._bell.ring()

    def next(self, patience: Patience) -> Any:
        """The next message. Raises Rejected at the end, Late, Woken."""
        while not self._came:
            self._bell.wait(patience)
        if isinstance(self._came[0], Rejected):
            raise self._came[0]
        return self._came.pop(0)

    def close(self) -> None:
        """Never raises."""
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


class Grpc:
    """One cluster by gRPC. See `server.Server`. Names are looked up by gRPC, for each new channel."""

    def __init__(self, address: Address) -> None:
        self._login = Login(address)
        self._endpoints = list(address.endpoints)
        self._server_name = address.server_name
        self._credentials = _credentials(address) if any(secure for _, _, secure in self._endpoints) else None
        self.line: _Line | None = None

    def txn(
        self,
        compares: Sequence[Compare],
        then: Sequence[Operation],
        otherwise: Sequence[Operation],
        patience: Patience,
    ) -> Outcome:
        """See `server.Server`."""
        request = rpc.TxnRequest(
            compare=[_compare(*compare) for compare in compares],
            success=[_operation(operation) for operation in then],
            failure=[_operation(operation) for operation in otherwise],
        )
        try:
            answer = self._call(lambda line: line.kv.Txn, request, patience, expected=NOT_FOUND)
        except Rejected:
            raise NoLease from None
        found = [_entries(response.response_range) for response in answer.responses]
        return Outcome(answer.header.revision, found, held=answer.succeeded)

    def range(self, look: Operation, patience: Patience) -> tuple[list[Entry], int]:
        """See `server.Server`."""
        answer = self._call(lambda line: line.kv.Range, _operation(look).request_range, patience)
        return _entries(answer), answer.header.revision

    def grant(self, lease: int, ttl: int, patience: Patience) -> bool:
        """See `server.Server`."""
        request = rpc.LeaseGrantRequest(ID=lease, TTL=ttl)
        try:
            self._call(lambda line: line.lease.LeaseGrant, request, patience, expected=PRECONDITION)
        except Rejected:
            return False
        return True

    def keep_alive(self, lease: int, patience: Patience) -> bool:
        """See `server.Server`."""
        request = rpc.LeaseKeepAliveRequest(ID=lease)

        def ask(line: _Line, share: Patience) -> Any:
            stream = _Stream(line.lease.LeaseKeepAlive, request, self._metadata(), _seconds(share))
            try:
                return _told(request, lambda: stream.next(share))
            finally:
                stream.close()

        return bool(self._with_login(ask, patience).TTL > 0)

    def left(self, lease: int, patience: Patience) -> int:
        """See `server.Server`."""
        request = rpc.LeaseTimeToLiveRequest(ID=lease)
        return max(0, int(self._call(lambda line: line.lease.LeaseTimeToLive, request, patience).TTL))

    def revoke(self, lease: int, patience: Patience) -> None:
        """See `server.Server`."""
        request = rpc.LeaseRevokeRequest(ID=lease)
        try:
            self._call(lambda line: line.lease.LeaseRevoke, request, patience, expected=NOT_FOUND)
        except Rejected:
            return

    def watch(self, key: str, revision: int, patience: Patience) -> GrpcWatch:
        """See `server.Server`."""
        create = rpc.WatchCreateRequest(
            key=_encoded(key), start_revision=revision, filters=[rpc.WatchCreateRequest.NOPUT]
        )
        request = rpc.WatchRequest(create_request=create)

        def ask(line: _Line, share: Patience) -> GrpcWatch:
            metadata = [*self._metadata(), _NEEDS_LEADER]
            stream = _Stream(line.watch.Watch, request, metadata, None)
            return _told(create, lambda: GrpcWatch(self, line, stream, share))

        watch = self._with_login(ask, patience)
        if watch.refused:
            # Why, it says in words only; a read of the same key says it by code, and renews the token.
            self.txn([], [Operation("range", key)], [], patience)
            watch = self._with_login(ask, patience)
        if watch.refused:
            raise Unavailable(f"etcd: {watch.refused}")
        return watch

    def offset(self) -> tuple[float, float] | None:
        """See `server.Server`: no answer has the time in it."""
        return None

    def known(self) -> list[Any]:
        """See `server.Server`."""
        return []

    def recall(self, known: Any) -> None:
        """See `server.Server`."""

    def close(self) -> None:
        """See `server.Server`."""
        if self.line is not None:
            self.line.channel.close()
            self.line = None

    def _call(
        self, method: Callable[[_Line], Any], request: Any, patience: Patience, expected: int | None = None
    ) -> Any:
        def ask(line: _Line, share: Patience) -> Any:
            return _answer(method(line), request, self._metadata(), share)

        return self._with_login(ask, patience, expected)

    def _with_login(
        self, ask: Callable[[_Line, Patience], Result], patience: Patience, expected: int | None = None
    ) -> Result:
        """Ask logged in. Raises Failure for a no, but Rejected for the one that is expected."""

        def authenticate(user: str, password: str) -> str:
            request = rpc.AuthenticateRequest(name=user, password=password)
            answer = self._anywhere(
                lambda line, share: _answer(line.auth.Authenticate, request, [], share), patience
            )
            return str(answer.token)

        try:
            return self._login.during(lambda: self._anywhere(ask, patience), authenticate)
        except Rejected as rejected:
            if rejected.code == expected:
                raise
            raise self._failure(rejected) from None

    def _anywhere(self, ask: Callable[[_Line, Patience], Result], patience: Patience) -> Result:
        """Ask at one endpoint after the other; each gets its share of the time that is left."""
        failures: dict[str, Exception] = {}
        for left in range(len(self._endpoints), 0, -1):
            share = patience.share(left)
            if self.line is None:
                self.line = _Line(self._channel(*self._endpoints[0]))
            try:
                return ask(self.line, share)
            except Late as late:
                failures[_name(*self._endpoints[0])] = late
            except Rejected as rejected:
                if rejected.code in _ANSWERS:
                    raise
                failures[_name(*self._endpoints[0])] = rejected
            self.close()
            self._endpoints.append(self._endpoints.pop(0))
        places = "; ".join(f"{name}: {failure}" for name, failure in failures.items())
        if all(_is_untrusted(failure) for failure in failures.values()):
            raise Refused(f"etcd: the certificate is not trusted, or ours isn't: {places}", UNUSABLE)
        raise Unavailable(f"etcd: {places}")

    def _channel(self, host: str, port: int, secure: bool) -> Any:
        target = f"dns:///{_name(host, port)}"
        if not secure:
            return grpc.insecure_channel(target, [*_OPTIONS, ("grpc.enable_http_proxy", 0)])
        options = [*_OPTIONS, _proxy(host, port)]
        if self._server_name:
            options.append(("grpc.ssl_target_name_override", self._server_name))
        return grpc.secure_channel(target, self._credentials, options)

    def _metadata(self) -> Metadata:
        return [("token", self._login.token)] if self._login.token else []

    def _failure(self, rejected: Rejected) -> Failure:
        if rejected.code == UNIMPLEMENTED:
            return Refused(f"what answers is not etcd ({rejected}): check host, port", UNUSABLE)
        known = ": if it knows users, name one (ETCDCTL_USER=USER:PASSWORD) or use a certificate in its name"
        return rejected.failure("" if self._login.user else known)


class GrpcWatch:
    """A watch on a channel. See `server.Watch`. `refused` is why the server doesn't make it."""

    def __init__(self, server: Grpc, line: _Line, stream: _Stream, patience: Patience) -> None:
        self._server = server
        self._line = line
        self._stream = stream
        self.refused = ""
        try:
            first = stream.next(patience)
        except BaseException:
            stream.close()
            raise
        # Canceled for a revision that is gone from the history means: whoever waits looks again.
        self._over = bool(first.canceled)
        if first.canceled and not first.compact_revision:
            self.refused = first.cancel_reason or "the watch was canceled"
            stream.close()

    def wait(self, patience: Patience) -> None:
        """See `server.Watch`."""
        while not self._over:
            try:
                answer = self._stream.next(patience)
            except Rejected as rejected:
                raise Broken(str(rejected)) from None
            if answer.canceled and not answer.compact_revision:
                raise Broken(answer.cancel_reason or "the watch was canceled")
            self._over = bool(answer.canceled or answer.events)

    def stands(self) -> bool:
        """See `server.Watch`."""
        return self._line is self._server.line

    def close(self) -> None:
        """See `server.Watch`."""
        self._stream.close()


def _answer(method: Any, request: Any, metadata: Metadata, patience: Patience) -> Any:
    """The answer to a call. Raises Rejected, Late, Woken."""
    return _told(request, lambda: _awaited(method, request, metadata, patience))


def _told(request: Any, work: Callable[[], Result]) -> Result:
    """Do `work`, which sends `request`, and have the trace tell of it."""
    return toolbox.request(work, type(request).__name__, lambda: _key(request), lambda _: "OK")


def _key(request: Any) -> str:
    """The key that a request is about, or its lease's id; empty for a login."""
    if isinstance(request, rpc.TxnRequest):
        operations = [*request.compare, *(operation.request_range for operation in request.success)]
        request = operations[0]
    return _decoded(request.key) if hasattr(request, "key") else str(getattr(request, "ID", ""))


def _awaited(method: Any, request: Any, metadata: Metadata, patience: Patience) -> Any:
    bell = _Bell()
    call = method.future(request, timeout=_seconds(patience), metadata=metadata)
    call.add_done_callback(bell.ring)
    try:
        bell.wait(patience)
    except (Late, Woken):
        call.cancel()
        raise
    if call.code() != grpc.StatusCode.OK:
        raise _rejected(call)
    return call.result()


def _rejected(call: Any) -> Rejected:
    """Why a call ended without an answer."""
    code, name = call.code().value
    return Rejected(code, "no answer in time" if code == LATE else " ".join((call.details() or name).split()))


def _is_untrusted(failure: Exception) -> bool:
    """Whether TLS failed for good. gRPC tells it by words alone."""
    return any(words in str(failure) for words in _UNTRUSTED)


def _seconds(patience: Patience) -> float:
    """What is left, for the server to know when nobody listens any more."""
    return max(0.0, patience.until - toolbox.now())


def _name(host: str, port: int, _secure: bool = False) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _credentials(address: Address) -> Any:
    if address.insecure:
        raise Refused(
            "gRPC can't leave a certificate unchecked: give its authority (cacert, ETCDCTL_CACERT), or use etcd://",
            UNUSABLE,
        )
    from singleton_run.api.http.tls import Tls

    # It says what is wrong with the files; gRPC doesn't.
    Tls(address.cacert, address.cert, address.key)
    key = (address.key or address.cert) if address.cert else ""
    authorities = address.cacert or _system_authorities()
    return grpc.ssl_channel_credentials(_content(authorities), _content(key), _content(address.cert))


def _system_authorities() -> str:
    """The file of those that OpenSSL would trust; where there is none, gRPC has some of its own."""
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
    """The option of gRPC's for the proxy by which the host is reached, or for none."""
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
    else:
        compare.target, compare.result = rpc.Compare.VALUE, rpc.Compare.LESS
        compare.value = _encoded(value)
    return compare


def _operation(operation: Operation) -> Any:
    key = _encoded(operation.key)
    if operation.kind == "put":
        put = rpc.PutRequest(key=key, value=_encoded(operation.value), lease=operation.lease)
        return rpc.RequestOp(request_put=put)
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


def _entries(found: Any) -> list[Entry]:
    return [Entry(_decoded(kv.key), _decoded(kv.value), kv.create_revision, kv.lease) for kv in found.kvs]
