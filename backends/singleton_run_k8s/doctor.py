"""What `doctor` finds in Kubernetes: by reviews of our own access, and by a Lease made as a dry run.

The API server stores neither. A token is taken apart for its owner and its end, and never shown.
"""

from __future__ import annotations

import time
from binascii import Error, a2b_base64

from singleton_run.api import toolbox
from singleton_run.api.deadline import Deadline
from singleton_run.api.finding import Finding, good, warning
from singleton_run.errors import Failure, Unavailable
from singleton_run_k8s import lease
from singleton_run_k8s.client import Gone, WatchForbidden
from singleton_run_k8s.objects import of_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from singleton_run_k8s.client import Api
    from singleton_run_k8s.lease import Lease

_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_GROUP = "coordination.k8s.io"
_ACCOUNT = "system:serviceaccount:"
_DRY = "doctor-dry-run"
_SETUP = "`singleton-run doctor --setup` with the same --lock prints the Role for an administrator"
_VERBS = (
    ("get", Finding.BAD, "every run"),
    ("create", Finding.BAD, "the first run under a name"),
    ("update", Finding.BAD, "every run"),
    ("watch", Finding.WARNING, "a hand-over in milliseconds (without it the Lease is read every 2 s)"),
    ("list", Finding.WARNING, "singleton-run list"),
    ("delete", Finding.WARNING, "singleton-run forget"),
)
_SOON = 60.0
_LONGEST_NAME = 200


def examine(
    api: Api, name: str, limit: float, *, stamps: bool, pod: tuple[str, str] = ("", "")
) -> Iterator[Finding]:
    """See `contract.Backend`. `stamps`: the API server's clock may be used. `pod`: ours, its namespace."""
    user = _user(api, limit)
    yield _version(api, limit)
    yield good(f"we are logged in as {user or 'somebody'}, and lock in the namespace {api.namespace}")
    yield from _token(api.authorization(Deadline.after(limit)))
    allowed = {verb: _may(api, verb, name, limit) for verb, _, _ in _VERBS}
    found = api.get(of_lock(name), Deadline.after(limit)) if name and allowed["get"] else None
    if any(allowed.values()):
        yield good(f"we may {', '.join(verb for verb in allowed if allowed[verb])} leases in {api.namespace}")
    for verb, grade, use in _VERBS:
        if not allowed[verb] and (verb != "create" or found is None):
            yield _lacking(api, verb, grade, use, name)
    yield _events(api, limit)
    yield _label(api, *pod, limit)
    if found is None and allowed["create"]:
        found = _made_dry(api, name or _DRY, limit)
        yield good(f"the namespace {api.namespace} takes a Lease (made as a dry run)")
    if found is not None:
        yield _stamps(api, found, stamps=stamps)
    if allowed["watch"]:
        yield _watch(api, of_lock(name or _DRY), limit)


def setup(api: Api, limit: float) -> str:
    """See `contract.Backend`: YAML for kubectl. Raises Unavailable where nobody can tell who we are."""
    user = _user(api, limit)
    if not user:
        raise Unavailable("kubernetes: the API server doesn't tell who we are: log in by a token")
    account = user.removeprefix(_ACCOUNT) if user.startswith(_ACCOUNT) else ""
    place, _, of_account = account.partition(":")
    if account:
        subject = f"kind: ServiceAccount\n    name: {_quoted(of_account)}\n    namespace: {_quoted(place)}"
    else:
        subject = f"kind: User\n    apiGroup: rbac.authorization.k8s.io\n    name: {_quoted(user)}"
    # A binding for each, so that one that is applied later takes nothing from the others.
    plain = len(user) < _LONGEST_NAME and "/" not in user and "%" not in user
    binding = f"singleton-run:{user if plain else toolbox.digest([user])}"
    return _YAML.format(namespace=_quoted(api.namespace), binding=_quoted(binding), subject=subject)


_YAML = """\
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: singleton-run
  namespace: {namespace}
rules:
  # get, create, update: every run. watch: a hand-over in milliseconds. list: singleton-run list.
  # delete: singleton-run forget.
  - apiGroups: ["coordination.k8s.io"]
    resources: ["leases"]
    verbs: ["get", "create", "update", "watch", "list", "delete"]
  # Optional: kubectl describe lease NAME then tells who had the lock when.
  - apiGroups: [""]
    resources: ["events"]
    verbs: ["create"]
  # For --label-pod alone. Who may patch pods may change every pod of the namespace.
  # - apiGroups: [""]
  #   resources: ["pods"]
  #   verbs: ["patch"]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {binding}
  namespace: {namespace}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: singleton-run
subjects:
  - {subject}
"""


def _quoted(text: str) -> str:
    """A text as YAML has it, which is as JSON has it."""
    return toolbox.dumps(text)


def _user(api: Api, limit: float) -> str:
    """Whom the API server knows us as; empty if nobody tells. Raises Unavailable, Refused."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    status, value = api.ask("POST", _WHO, body, Deadline.after(limit))
    if status < 300:
        return str(_part(value, "status", "userInfo").get("username") or "")
    # Before Kubernetes 1.28 it can't be asked. The token of a service account says it too.
    return str(_claims(api.authorization(Deadline.after(limit))).get("sub") or "")


def _version(api: Api, limit: float) -> Finding:
    status, value = api.ask("GET", "/version", None, Deadline.after(limit))
    if status < 300 and isinstance(value, dict) and value.get("gitVersion"):
        return good(f"the API server is Kubernetes {value['gitVersion']}")
    return good("the API server doesn't tell its version")


def _token(authorization: str) -> Iterator[Finding]:
    """How long our token is good, where it says so."""
    ends = _claims(authorization).get("exp")
    if not isinstance(ends, (int, float)):
        return
    left = ends - time.time()
    if left < _SOON:
        yield warning("our token ends within a minute, by this machine's clock", "see that it is renewed")
    else:
        yield good(f"our token is good for {left / 60:.0f} minutes, by this machine's clock")


def _claims(authorization: str) -> Mapping[str, Any]:
    """What a JSON web token says; nothing for another credential. Its signature isn't checked."""
    parts = authorization.partition(" ")[2].split(".")
    if len(parts) != 3:
        return {}
    try:
        text = parts[1].replace("-", "+").replace("_", "/")
        value = toolbox.loads(a2b_base64(text + "=" * (-len(text) % 4)).decode())
    except (Error, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _may(api: Api, verb: str, name: str, limit: float, resource: str = "leases", group: str = _GROUP) -> bool:
    """Whether the API server allows it. Raises Unavailable where it doesn't say."""
    what = {"namespace": api.namespace, "verb": verb, "group": group, "resource": resource}
    if name and verb not in ("create", "list"):
        what["name"] = of_lock(name)
    return _allowed(api, what, limit)


def _allowed(api: Api, what: Mapping[str, str], limit: float) -> bool:
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": what},
    }
    status, value = api.ask("POST", _REVIEWS, body, Deadline.after(limit))
    if status >= 300:
        raise Unavailable(f"kubernetes: permissions can't be asked for: the API server answers {status}")
    return _part(value, "status").get("allowed") is True


def _lacking(api: Api, verb: str, grade: str, use: str, name: str) -> Finding:
    todo = _SETUP if name else f"{_SETUP}; a Role for certain locks is seen only with a NAME"
    if verb == "create" and name:
        todo += f", or have one make the Lease {of_lock(name)} beforehand"
    return Finding(grade, f"we may not {verb} leases in {api.namespace}, which is for {use}", todo)


def _events(api: Api, limit: float) -> Finding:
    if _may(api, "create", "", limit, "events", ""):
        return good(f"we may create events in {api.namespace}")
    return good("we may not create events, which is optional: kubectl describe lease tells less so")


def _label(api: Api, pod: str, namespace: str, limit: float) -> Finding:
    """Whether --label-pod would work; a doctor who doesn't run in a pod asks as if it did."""
    place = namespace or api.own_namespace(Deadline.after(limit))
    if _allowed(
        api, {"namespace": place, "verb": "patch", "group": "", "resource": "pods", "name": pod}, limit
    ):
        return good(f"we may patch pods in {place}, which --label-pod needs")
    return good(f"we may not patch pods in {place}, which is optional: without it there is no --label-pod")


def _made_dry(api: Api, name: str, limit: float) -> Lease:
    """The Lease that the server would make. Raises Failure where it would not."""
    body = lease.taken(None, name, "doctor", toolbox.LEAST_TTL, time.time(), of_lock(name))
    written = api.create_dry(body, Deadline.after(limit))
    if written is None:
        raise Unavailable("kubernetes: another makes the same Lease at this moment: try again")
    return written


def _stamps(api: Api, found: Lease, *, stamps: bool) -> Finding:
    if not stamps:
        return good("the API server's clock isn't used (clock=observed): a lost holder is waited for")
    if not lease.holder_of(found):
        return good("nobody holds the Lease now, so whether the server stamps a renewal can't be seen")
    if lease.stamp_of(found) is not None and api.clock.told() is not None:
        return good("the server stamps what is written: a lock whose holder was lost is taken at first sight")
    return warning(
        "the server doesn't stamp what is written (managedFields, Date): a lock whose holder was lost is "
        "taken only after it was watched for a whole --ttl",
        "look for a proxy in between; -n and a short --wait need the stamps",
    )


def _watch(api: Api, stored_as: str, limit: float) -> Finding:
    try:
        api.watch(stored_as, "0", Deadline.after(limit)).close()
    except (Gone, WatchForbidden, Failure) as error:
        return warning(
            f"no watch opens ({str(error) or type(error).__name__}), though it is allowed: who waits reads "
            "the Lease every 2 s",
            "look for a proxy in between that holds answers back",
        )
    return good("a watch opens: who waits is told at once")


def _part(value: Any, *words: str) -> Mapping[str, Any]:
    """The object at that place in another; empty if there is none."""
    for word in words:
        value = value.get(word) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}
