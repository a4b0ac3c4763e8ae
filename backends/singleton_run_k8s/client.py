"""The API server's calls for Leases. See `login` for the credentials.

A conflict, and an object that doesn't exist, are results. Every other error of the server's raises Refused or
Unavailable.
"""

from __future__ import annotations

from singleton_run.api import toolbox
from singleton_run.api.deadline import Interrupted
from singleton_run.api.http.wire import Broken
from singleton_run.api.servers import ServerClock, with_new_login
from singleton_run.api.url import whole_number
from singleton_run.errors import UNUSABLE, Failure, Refused, Unavailable
from singleton_run_k8s import errors, lease

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, TypeVar

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.client import Stream
    from singleton_run.api.http.connection import Answer
    from singleton_run_k8s.lease import Lease
    from singleton_run_k8s.login import Access, Login

    Headers = dict[str, Any]
    Leases = list[Lease]  # named here, for `list` is a method below
    Result = TypeVar("Result")

_GROUP = "/apis/coordination.k8s.io/v1"
_PAGE = 500
_LEAST_PAUSE = 1.0
# Seconds for which a refusal of an allowed request is tried again: a server that has just started may not
# have loaded its rules.
_GRACE = 30.0


class Gone(Exception):
    """The server has forgotten the version that a watch was to begin with: read the Lease again."""


class WatchForbidden(Exception):
    """We may not watch Leases, though we may read them."""


class _Unauthorized(Exception):
    """The server answers 401 to a request with these headers."""

    def __init__(self, answer: Answer, access: Access, headers: Headers) -> None:
        super().__init__()
        self.answer = answer
        self.access = access
        self.header = str(headers.get("Authorization", ""))


class Api:
    """The Leases in one namespace. An empty `namespace` stands for that of the login.

    `clock` is the API server's, by the `Date` of the last answer.
    """

    def __init__(self, login: Login, namespace: str) -> None:
        self._login = login
        self._namespace = namespace
        self._allowed: set[str] = set()
        self._refused_since: float | None = None
        self._recalled: Any = ()
        self._access: Access | None = None
        self.clock = ServerClock()

    def get(self, name: str, deadline: Deadline) -> Lease | None:
        """The Lease with that name, None if there is none."""
        answer = self._call("get", "GET", f"leases/{name}", None, deadline)
        return None if answer.status == 404 else self._object(answer)

    def create(self, lease: Lease, deadline: Deadline) -> Lease | None:
        """Create a Lease; None if there is one with that name."""
        answer = self._call("create", "POST", "leases", lease, deadline)
        return None if answer.status == 409 else self._object(answer)

    def create_dry(self, lease: Lease, deadline: Deadline) -> Lease | None:
        """The Lease that `create` would create, without its version: nothing is stored."""
        answer = self._call("create", "POST", "leases?dryRun=All", lease, deadline)
        return None if answer.status == 409 else self._json(answer)

    def update(self, lease: Lease, deadline: Deadline) -> Lease | None:
        """Replace a Lease if it still has the version that `lease` names; None if not."""
        path = f"leases/{lease['metadata']['name']}"
        answer = self._call("update", "PUT", path, lease, deadline)
        # The uid names this very object: one that was deleted, and made again, is a conflict or not found.
        return None if answer.status in (404, 409) else self._object(answer)

    def delete(self, name: str, deadline: Deadline) -> bool:
        """Delete a Lease; false if there was none."""
        return self._call("delete", "DELETE", f"leases/{name}", None, deadline).status != 404

    def list(self, selector: str, deadline: Deadline) -> Leases:
        """The Leases whose labels match `selector`."""
        found: Leases = []
        more = ""
        while True:
            path = f"leases?labelSelector={_quoted(selector)}&limit={_PAGE}{more}"
            page = self._json(self._call("list", "GET", path, None, deadline))
            items, about = page.get("items"), page.get("metadata")
            if not isinstance(items, list) or not isinstance(about, dict):
                raise Refused(errors.NOT_KUBERNETES, UNUSABLE)
            found += [one for one in items if lease.is_whole(one)]
            token = about.get("continue")
            if not token:
                return found
            more = f"&continue={_quoted(str(token))}"

    def watch(self, name: str, version: str, deadline: Deadline) -> Watch:
        """A watch on a Lease from that version on; the caller closes it. Raises Gone, WatchForbidden too."""
        query = f"watch=true&fieldSelector=metadata.name%3D{name}&resourceVersion={version}"

        def ask() -> Watch:
            access, headers = self._prepared(deadline)
            path = self._path(access, f"leases?{query}")
            stream = access.client.stream("GET", path, headers, b"", deadline)
            if stream.status == 200:
                return Watch(stream)
            stream.close()
            if stream.status == 410:
                raise Gone
            if stream.status == 401:
                raise _Unauthorized(stream.answer, access, headers)
            failure = self._failure("watch", stream.answer, access)
            if stream.status == 403 and isinstance(failure, Refused):
                raise WatchForbidden
            raise failure

        return self._logged_in("watch", ask, deadline)

    def create_event(self, event: Mapping[str, Any], deadline: Deadline) -> bool:
        """Create an Event; false if the server answers with an error."""
        access, headers = self._prepared(deadline)
        path = f"{access.path}/api/v1/namespaces/{self.namespace}/events"
        body = toolbox.dumps({**event, "metadata": {"generateName": "singleton-run-"}}).encode()
        return access.client.request("POST", path, headers, body, deadline).status < 300

    def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, deadline: Deadline, kind: str = ""
    ) -> tuple[int, Any]:
        """The status and the value of an answer to a request for something else than Leases.

        `path` begins at the API server's root. `kind` is the body's media type, empty for that of JSON. The
        value is None if it isn't JSON. Raises Unavailable, Refused (for the login alone), Interrupted.
        """
        data = b"" if body is None else toolbox.dumps(body).encode()

        def ask() -> tuple[int, Any]:
            access, headers = self._prepared(deadline)
            if kind:
                headers["Content-Type"] = kind
            sent = toolbox.now()
            answer = access.client.request(method, access.path + path, headers, data, deadline)
            self.clock.read(answer.headers.get("date"), sent, toolbox.now())
            if answer.status == 401:
                raise _Unauthorized(answer, access, headers)
            return answer.status, _parsed(answer.body)

        return self._logged_in("ask", ask, deadline)

    def authorization(self, deadline: Deadline) -> str:
        """The header by which we log in, which is secret; empty for a certificate. As `login.Login`."""
        return self._login.authorization(deadline)

    @property
    def namespace(self) -> str:
        """The namespace of the Leases; empty if the login decides it and wasn't made yet."""
        return self._namespace or (self._access.namespace if self._access is not None else "")

    def own_namespace(self, deadline: Deadline) -> str:
        """The namespace of the login: in a pod, that of the pod. Raises Unavailable, Refused, Interrupted."""
        return self._prepared(deadline)[0].namespace

    def known(self) -> Any:
        """The server's addresses, for `recall` in a fresh process; survives JSON."""
        return [] if self._access is None else self._access.client.known()

    def recall(self, known: Any) -> None:
        """Take the addresses that `known` gave, except for hosts that were looked up here."""
        self._recalled = known

    def close(self) -> None:
        """Drop every connection. Never raises."""
        self._login.close()

    def _prepared(self, deadline: Deadline) -> tuple[Access, Headers]:
        access = self._access = self._login.access(deadline)
        access.client.recall(self._recalled)
        self._recalled = ()
        headers: Headers = {
            "Accept": "application/json",
            "User-Agent": f"singleton-run/{toolbox.version}",
        }
        said = self._login.authorization(deadline)
        if not (said.isascii() and said.isprintable()):
            raise Refused("the login gives a token with characters in it that no token has", UNUSABLE)
        if said:
            headers["Authorization"] = said
        headers.update(self._login.headers())
        return access, headers

    def _path(self, access: Access, rest: str) -> str:
        return f"{access.path}{_GROUP}/namespaces/{self.namespace}/{rest}"

    def _call(self, verb: str, method: str, rest: str, body: Lease | None, deadline: Deadline) -> Answer:
        """The answer to a request: a success, 404 or 409. Raises Unavailable, Refused, Interrupted."""
        data = b"" if body is None else toolbox.dumps(body).encode()

        def ask() -> Answer:
            while True:
                access, headers = self._prepared(deadline)
                sent = toolbox.now()
                answer = access.client.request(method, self._path(access, rest), headers, data, deadline)
                self.clock.read(answer.headers.get("date"), sent, toolbox.now())
                if answer.status == 401:
                    raise _Unauthorized(answer, access, headers)
                if answer.status == 429 and _pause(answer, deadline):
                    continue
                if answer.status < 300 or self._is_result(answer, verb):
                    return answer
                raise self._failure(verb, answer, access)

        return self._logged_in(verb, ask, deadline)

    def _logged_in(self, verb: str, ask: Callable[[], Result], deadline: Deadline) -> Result:
        """Ask with our credentials, once more with new ones if the server refuses them."""

        def renew(refused: _Unauthorized) -> bool:
            return self._login.renew(refused.header, deadline)

        try:
            result = with_new_login(ask, _Unauthorized, renew)
        except _Unauthorized as refused:
            raise self._failure(verb, refused.answer, refused.access) from None
        self._is_allowed(verb)
        return result

    def _is_allowed(self, verb: str) -> None:
        self._allowed.add(verb)
        self._refused_since = None

    def _is_result(self, answer: Answer, verb: str) -> bool:
        status = _status(answer)
        if answer.status == 404 and verb != "create":
            return status is not None
        return answer.status == 409 and status is not None

    def _failure(self, verb: str, answer: Answer, access: Access) -> Failure:
        nothing = self._login.missing_credentials()
        failure = errors.failure(verb, answer, _status(answer), self.namespace, access.place, nothing)
        known = self._allowed if answer.status == 401 else self._allowed & {verb}
        if not isinstance(failure, Refused) or answer.status not in (401, 403) or not known:
            return failure
        if self._refused_since is None:
            self._refused_since = toolbox.now()
        if toolbox.now() < self._refused_since + _GRACE:
            return Unavailable(str(failure))
        return failure

    def _object(self, answer: Answer) -> Lease:
        found = self._json(answer)
        if not lease.is_whole(found):
            raise Refused(errors.NOT_KUBERNETES, UNUSABLE)
        return found

    def _json(self, answer: Answer) -> dict[str, Any]:
        value = _parsed(answer.body)
        if isinstance(value, dict):
            return value
        if answer.body[:1] == b"{":
            raise Unavailable("kubernetes: an answer was cut off")
        raise Refused(errors.NOT_KUBERNETES, UNUSABLE)


class Watch:
    """The events of one Lease."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def next(self, deadline: Deadline) -> Lease | None:
        """The Lease after its next event, None if it was deleted. Raises Timeout, Interrupted.

        Raises Broken or Gone when the watch is over.
        """
        while True:
            line = self._stream.line(deadline)
            if not line.strip():
                continue
            event = _parsed(line)
            kind, found = (event.get("type"), event.get("object")) if isinstance(event, dict) else ("", None)
            if kind == "ERROR" and isinstance(found, dict):
                if found.get("code") == 410:
                    raise Gone
                raise Broken(f"the watch ended: {found.get('message')}")
            if kind == "BOOKMARK":
                continue
            if not lease.is_whole(found):
                raise Broken("what the watch says is not of Kubernetes")
            return None if kind == "DELETED" else found

    def close(self) -> None:
        """End the watch. Never raises."""
        self._stream.close()


def _status(answer: Answer) -> Mapping[str, Any] | None:
    """The Status object in an API server's error; None where the answer has none."""
    value = _parsed(answer.body)
    return value if isinstance(value, dict) and value.get("kind") == "Status" else None


def _parsed(data: bytes) -> Any:
    """The value that the JSON has, None if it isn't JSON."""
    try:
        return toolbox.loads(data.decode())
    except ValueError:
        return None


def _pause(answer: Answer, deadline: Deadline) -> bool:
    """Wait as long as a busy server asks for (Retry-After); false if the deadline is sooner.

    Raises Interrupted.
    """
    said = answer.headers.get("retry-after", "")
    until = toolbox.now() + max(_LEAST_PAUSE, float(max(0, whole_number(said))))
    if until >= deadline.until:
        return False
    if toolbox.wait(until, [deadline.wake] if deadline.wake >= 0 else []):
        raise Interrupted
    return True


def _quoted(text: str) -> str:
    plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~"
    return "".join(chr(byte) if chr(byte) in plain else f"%{byte:02X}" for byte in text.encode())
