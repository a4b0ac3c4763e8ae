"""An API server's error as one line for the user, with what to do about it."""

from __future__ import annotations

from singleton_run.errors import DENIED, UNUSABLE, Failure, Refused, Unavailable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from singleton_run.api.http.connection import Answer

NOT_KUBERNETES = "what answers is not a Kubernetes API server: check the address, and any proxy before it"
_LONGEST = 200
_ACCOUNT = "system:serviceaccount:"


def failure(
    verb: str,
    answer: Answer,
    status: Mapping[str, Any] | None,
    namespace: str,
    place: str,
    nothing: str = "",
) -> Failure:
    """The contract's error for an answer to `verb` on a Lease.

    `status` is the Status object in it; None where there is none, because a proxy answered, say. `nothing` is
    the reason why the login has no credentials; empty where it has some.
    """
    code = answer.status
    if status is None:
        text = f"{place} answers {code} ({_short(answer.body.decode(errors='replace'))!r})"
        if code >= 500 or code == 429:
            return Unavailable(f"kubernetes: {text}")
        return Refused(f"{text}: {NOT_KUBERNETES}", UNUSABLE)
    message = str(status.get("message") or status.get("reason") or code)
    said = _short(message)
    if code in (401, 403) and nothing and not _is_ending(status):
        return Refused(f"kubernetes: {place} wants to know who asks, but {nothing}", DENIED)
    if code == 401:
        return Refused(
            f"kubernetes: {place} refuses the login ({said}): is the token or certificate valid still?",
            DENIED,
        )
    if code == 403 and " cannot impersonate" in message:
        return Refused(
            f"kubernetes: {place} answers: {said}: the kubeconfig's as, as-groups, as-uid and as-user-extra "
            "need a role with the verb impersonate",
            DENIED,
        )
    if code == 403 and not _is_ending(status):
        return Refused(f"kubernetes: {_may_not(verb, message, namespace)}", DENIED)
    if code == 404 and _details(status).get("kind") == "namespaces":
        return Refused(
            f"kubernetes: there is no namespace {namespace}: name another as k8s-lease://NAMESPACE, "
            f"or kubectl create namespace {namespace}",
            UNUSABLE,
        )
    if code in (429, 409) or code >= 500:
        return Unavailable(f"kubernetes: {place} answers {code}: {said}")
    return Refused(f"kubernetes: {place} answers {code}: {said}", DENIED if code == 403 else UNUSABLE)


def role(verbs: str, namespace: str, user: str) -> str:
    """The kubectl commands that give `user`, by the API server's name for it, the permission for `verbs`."""
    subject = f"--user='{user}'" if user else "--user=USER"
    if user.startswith(_ACCOUNT):
        subject = f"--serviceaccount={user.removeprefix(_ACCOUNT)}"
    return (
        f"kubectl create role singleton-run -n {namespace} --verb={verbs} "
        f"--resource=leases.coordination.k8s.io && kubectl create rolebinding singleton-run -n {namespace} "
        f"--role=singleton-run {subject}"
    )


def _may_not(verb: str, said: str, namespace: str) -> str:
    user = said.partition('User "')[2].partition('"')[0]
    verbs = "get,create,update,watch"
    if verb not in verbs.split(","):
        verbs += f",{verb}"
    who = user or "this user"
    return f"{who} may not {verb} leases in namespace {namespace}: {role(verbs, namespace, user)}"


def _is_ending(status: Mapping[str, Any]) -> bool:
    """Whether the namespace is being deleted, so that nothing can be made in it."""
    return "NamespaceTerminating" in str(_details(status).get("causes"))


def _details(status: Mapping[str, Any]) -> Mapping[str, Any]:
    details = status.get("details")
    return details if isinstance(details, dict) else {}


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
