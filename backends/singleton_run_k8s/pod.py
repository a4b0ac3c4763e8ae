"""The label on our own pod, by which a Service finds the holder."""

from __future__ import annotations

from singleton_run.errors import DENIED, UNUSABLE, Refused, Unavailable
from singleton_run_k8s import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from singleton_run.api.deadline import Deadline
    from singleton_run_k8s.client import Api

_MERGE = "application/merge-patch+json"
_LONGEST = 200


def label(api: Api, pod: str, namespace: str, text: str, deadline: Deadline, *, on: bool) -> None:
    """Set the label KEY=VALUE on the pod, or take it away. An empty `namespace` is that of the login.

    Raises Unavailable, Refused.
    """
    key, _, value = text.partition("=")
    place = namespace or api.own_namespace(deadline)
    body = {"metadata": {"labels": {key: value if on else None}}}
    path = f"/api/v1/namespaces/{place}/pods/{pod}"
    status, answer = api.ask("PATCH", path, body, deadline, _MERGE)
    if status < 300:
        if isinstance(answer, dict):
            return
        raise Refused(errors.NOT_KUBERNETES, UNUSABLE)
    said = _said(answer) or str(status)
    if status == 403:
        raise Refused(
            f"kubernetes: --label-pod needs the permission to patch pods: {role(place, said)}", DENIED
        )
    if status == 404:
        raise Refused(
            f"kubernetes: there is no pod {pod} in namespace {place} for --label-pod: say in POD_NAME and "
            "POD_NAMESPACE which one this is, by the downward API",
            UNUSABLE,
        )
    if status in (409, 429) or status >= 500:
        raise Unavailable(f"kubernetes: the API server answers {status} to a label: {said}")
    raise Refused(f"kubernetes: the API server answers {status} to a label: {said}", UNUSABLE)


def role(namespace: str, said: str = "") -> str:
    """The kubectl commands that give the permission to whom the answer `said` names."""
    user = said.partition('User "')[2].partition('"')[0]
    account = user.removeprefix("system:serviceaccount:")
    subject = f"--user='{user or 'USER'}'" if account == user else f"--serviceaccount={account}"
    return (
        f"kubectl create role singleton-run-label -n {namespace} --verb=patch --resource=pods && "
        f"kubectl create rolebinding singleton-run-label -n {namespace} --role=singleton-run-label {subject}"
    )


def _said(answer: Any) -> str:
    message = answer.get("message") if isinstance(answer, dict) else None
    return " ".join(str(message or "").split())[:_LONGEST]
