"""etcd by gRPC, through the stubs of python-etcd3.

For clusters whose JSON gateway is off, or that know a user by the name in a certificate. Every call is begun on a channel, whose threads ring a bell when there is an answer; we wait for the
bell by our own clock. A channel that failed is dropped and the next endpoint is asked.
"""

from __future__ import annotations

import _thread
import os

from singleton_run import system
from singleton_run.errors import UNUSABLE, Refused, Unavailable
from singleton_run.http.connection import Broken
from singleton_run.http.patience import READ, Late, Patience, Woken
from singleton_run_etcd.server import Entry, NoLease, Operation, Outcome

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
    from singleton_run_etcd.server import Compare

    Result = TypeVar("Result")
    Metadata = list[tuple[str, str]]

_Code = grpc.StatusCode
_REFUSALS = (_Code.INVALID_ARGUMENT, _Code.PERMISSION_DENIED, _Code.UNIMPLEMENTED, _Code.UNAUTHENTICATED)
# With these a server that is well has answered: another would say the same.
_ANSWERS = (*_REFUSALS, _Code.NOT_FOUND, _Code.FAILED_PRECONDITION, _Code.OUT_OF_RANGE)
# A member that has lost the others ends the watch, instead of being silent.
_NEEDS_LEADER = ("hasleader", "true")
_OPTIONS = (
    # A new channel is a new attempt to connect, and doesn't wait for the back-off of the one before.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 1 << 26),
)


class _Failed(Exception):
    """A call ended without an answer, by its status code."""

    def __init__(self, code: Any, text: str | None) -> None:
        late = code == _Code.DEADLINE_EXCEEDED
        super().__init__("no answer in time" if late else " ".join((text or code.name).split()))
        self.code = code


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
            end = _Failed(_Code.UNAVAILABLE, "the server ended the stream")
        except grpc.RpcError:
            end = _Failed(self._call.code(), self._call.details())
        self._came.append(end)
        self._bell.ring()

    def next(self, patience: Patience) -> Any:
        """The next message. Raises _Failed at the end, Late, Woken."""
        while not self._came:
            self._bell.wait(patience)
        if isinstance(self._came[0], _Failed):
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
        self._user = address.user
        self._password = address.password
        self._token = ""
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
            answer = self._call(lambda line: line.kv.Txn, request, patience)
        except _Failed as failed:
            if failed.code == _Code.NOT_FOUND:
                raise NoLease from None
            raise self._failure(failed) from None
        found = [_entries(response) for response in answer.responses]
        return Outcome(answer.header.revision, found, held=answer.succeeded)

    def grant(self, lease: int, ttl: int, patience: Patience) -> bool:
        """See `server.Server`."""
        try:
            self._call(lambda line: line.lease.LeaseGrant, rpc.LeaseGrantRequest(ID=lease, TTL=ttl), patience)
        except _Failed as failed:
            if failed.code != _Code.FAILED_PRECONDITION:
                raise self._failure(failed) from None
            return False
        return True

    def keep_alive(self, lease: int, patience: Patience) -> bool:
        """See `server.Server`."""
        request = rpc.LeaseKeepAliveRequest(ID=lease)

        def ask(line: _Line, share: Patience) -> Any:
            stream = _Stream(line.lease.LeaseKeepAlive, request, self._metadata(), _seconds(share))
            try:
                return stream.next(share)
            finally:
                stream.close()

        try:
            answer = self._with_login(ask, patience)
        except _Failed as failed:
            raise self._failure(failed) from None
        return bool(answer.TTL > 0)

    def revoke(self, lease: int, patience: Patience) -> None:
        """See `server.Server`."""
        try:
            self._call(lambda line: line.lease.LeaseRevoke, rpc.LeaseRevokeRequest(ID=lease), patience)
        except _Failed as failed:
            if failed.code != _Code.NOT_FOUND:
                raise self._failure(failed) from None

    def watch(self, key: str, revision: int, patience: Patience) -> GrpcWatch:
        """See `server.Server`."""
        create = rpc.WatchCreateRequest(
            key=_encoded(key), start_revision=revision, filters=[rpc.WatchCreateRequest.NOPUT]
        )
        request = rpc.WatchRequest(create_request=create)

        def ask(line: _Line, share: Patience) -> GrpcWatch:
            metadata = [*self._metadata(), _NEEDS_LEADER]
            return GrpcWatch(self, line, _Stream(line.watch.Watch, request, metadata, None), share)

        try:
            watch = self._with_login(ask, patience)
            if watch.refused:
                # Why, it says in words only; a read of the same key says it by code, and renews the token.
                self.txn([], [Operation("range", key)], [], patience)
                watch = self._with_login(ask, patience)
        except _Failed as failed:
            raise self._failure(failed) from None
        if watch.refused:
            raise Unavailable(f"etcd: {watch.refused}")
        return watch

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

    def _call(self, method: Callable[[_Line], Any], request: Any, patience: Patience) -> Any:
        def ask(line: _Line, share: Patience) -> Any:
            return _answer(method(line), request, self._metadata(), share)

        return self._with_login(ask, patience)

    def _with_login(self, ask: Callable[[_Line, Patience], Result], patience: Patience) -> Result:
        """Ask logged in; once more with a new token if the server wants that."""
        self._log_in(patience)
        try:
            return self._anywhere(ask, patience)
        except _Failed as failed:
            # The token has come to its end, or the users were changed since.
            if not self._token or failed.code not in (_Code.INVALID_ARGUMENT, _Code.UNAUTHENTICATED):
                raise
        self._token = ""
        self._log_in(patience)
        return self._anywhere(ask, patience)

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
            except _Failed as failed:
                if failed.code in _ANSWERS:
                    raise
                failures[_name(*self._endpoints[0])] = failed
            self.close()
            self._endpoints.append(self._endpoints.pop(0))
        raise Unavailable("; ".join(f"{name}: {failure}" for name, failure in failures.items()))

    def _channel(self, host: str, port: int, secure: bool) -> Any:
        target = f"dns:///{_name(host, port)}"
        if not secure:
            return grpc.insecure_channel(target, [*_OPTIONS, ("grpc.enable_http_proxy", 0)])
        options = [*_OPTIONS, _proxy(host, port)]
        if self._server_name:
            options.append(("grpc.ssl_target_name_override", self._server_name))
        return grpc.secure_channel(target, self._credentials, options)

    def _metadata(self) -> Metadata:
        return [("token", self._token)] if self._token else []

    def _log_in(self, patience: Patience) -> None:
        if not self._user or self._token:
            return
        request = rpc.AuthenticateRequest(name=self._user, password=self._password)
        try:
            answer = self._anywhere(
                lambda line, share: _answer(line.auth.Authenticate, request, [], share), patience
            )
        except _Failed as failed:
            if failed.code != _Code.FAILED_PRECONDITION:
                raise Refused(f"etcd refuses the user {self._user!r} or the password: {failed}") from None
            # The cluster knows no users: as etcdctl does, go on without.
            self._user = ""
        else:
            self._token = answer.token

    def _failure(self, failed: _Failed) -> Refused | Unavailable:
        if failed.code not in _REFUSALS:
            return Unavailable(f"etcd: {failed}")
        if failed.code == _Code.UNIMPLEMENTED:
            return Refused(f"what answers is not etcd ({failed}): check host, port", UNUSABLE)
        advice = ": if it knows users, name one (ETCDCTL_USER=USER:PASSWORD) or use a certificate in its name"
        return Refused(f"etcd refuses: {failed}{'' if self._user else advice}")


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
            except _Failed as failed:
                raise Broken(str(failed)) from None
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
    """The answer to a call. Raises _Failed, Late, Woken."""
    bell = _Bell()
    call = method.future(request, timeout=_seconds(patience), metadata=metadata)
    call.add_done_callback(bell.ring)
    try:
        bell.wait(patience)
    except (Late, Woken):
        call.cancel()
        raise
    if call.code() != _Code.OK:
        raise _Failed(call.code(), call.details())
    return call.result()


def _seconds(patience: Patience) -> float:
    """What is left, for the server to know when nobody listens any more."""
    return max(0.0, patience.until - system.now())


def _name(host: str, port: int, _secure: bool = False) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _credentials(address: Address) -> Any:
    if address.insecure:
        raise Refused(
            "gRPC can't leave a certificate unchecked: give its authority (cacert, ETCDCTL_CACERT), or use etcd://",
            UNUSABLE,
        )
    from singleton_run.http.tls import Tls

    # It says what is wrong with the files; gRPC doesn't.
    Tls(address.cacert, address.cert, address.key)
    key = (address.key or address.cert) if address.cert else ""
    return grpc.ssl_channel_credentials(_content(address.cacert), _content(key), _content(address.cert))


def _content(path: str) -> bytes | None:
    if not path:
        return None
    with open(path, "rb") as file:
        return file.read()


def _proxy(host: str, port: int) -> tuple[str, Any]:
    """The option of gRPC's for the proxy by which the host is reached, or for none."""
    from singleton_run.http.proxy import choose

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


def _entries(response: Any) -> list[Entry]:
    found = response.response_range.kvs
    return [Entry(_decoded(one.key), _decoded(one.value), one.create_revision, one.lease) for one in found]
