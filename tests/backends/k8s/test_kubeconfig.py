"""Logging in by kubeconfigs as they are found: as kubectl takes them, and without a secret in any error."""

from __future__ import annotations

import copy
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from singleton_run.api.deadline import Deadline
from singleton_run.errors import UNUSABLE, Failure, Refused
from singleton_run_k8s.address import Address
from singleton_run_k8s.kubeconfig import Kubeconfig
from singleton_run_k8s.login_kubeconfig import KubeconfigLogin

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.process  # a login program is one

SECRET = "hunter2-hunter2"  # noqa: S105 - of nobody
EXEC = {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", "exit 3"]}


def content(user: object = None, context: str = "here") -> dict[str, Any]:
    """A kubeconfig with one context and that user."""
    return {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": SECRET} if user is None else user}],
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "current-context": context,
    }


def written(folder: Path, what: object, name: str = "config") -> Path:
    path = folder / name
    path.write_text(what if isinstance(what, str) else json.dumps(what))
    return path


def login(files: object, context: str = "") -> KubeconfigLogin:
    environ = {"KUBECONFIG": str(files), "PATH": os.environ["PATH"]}
    return KubeconfigLogin(Address(f"k8s-lease://?context={context}", environ), environ)


def header(files: object, context: str = "") -> str:
    """What a login by the files says of itself."""
    return login(files, context).authorization(Deadline.after(10.0))


def failure(files: object, context: str = "") -> Failure:
    with pytest.raises(Failure) as caught:
        header(files, context)
    return caught.value


def users() -> dict[str, Any]:
    """Entries of users that can't log in, each with a secret in it."""
    oidc = {"id-token": f"{SECRET}=", "refresh-token": SECRET, "client-secret": SECRET, "client-id": SECRET}
    return {
        "nulls": {"client-certificate-data": SECRET, "client-key-data": SECRET, "username": None},
        "no key": {"client-certificate-data": "QQ==", "token": SECRET},
        "not PEM": {"client-certificate-data": "QQ==", "client-key-data": "QQ==", "password": SECRET},
        "no config": {"auth-provider": {"name": "gcp"}, "password": SECRET},
        "oidc": {"auth-provider": {"name": "oidc", "config": oidc}},
        "oidc without": {"auth-provider": {"name": "oidc", "config": {**oidc, "id-token": None}}},
        "azure": {"auth-provider": {"name": "azure", "config": {"access-token": SECRET}}},
        "env without value": {"exec": {**EXEC, "env": [{"name": "A"}, {"name": "B", "value": SECRET}]}},
        "says it": {
            "exec": {**EXEC, "args": ["-c", "echo $B >&2; exit 3"], "env": [{"name": "B", "value": SECRET}]}
        },
        "env without name": {"exec": {**EXEC, "env": [{"value": SECRET}]}},
        "not JSON": {"exec": {**EXEC, "args": ["-c", f"echo {SECRET}"]}},
        "null status": {"exec": {**EXEC, "args": ["-c", "echo '{\"status\": null}' # " + SECRET]}},
        "number": {"token": 12345678901, "password": SECRET},
        "list": [SECRET],
        "text": SECRET,
        "groups": {"as": "a", "as-groups": SECRET},
        "uid alone": {"as-uid": SECRET},
    }


@pytest.mark.parametrize("case", users())
def test_a_login_that_fails_is_told_by_file_and_entry_and_without_its_secrets(
    case: str, tmp_path: Path
) -> None:
    file = written(tmp_path, content(users()[case]))
    error = failure(file)
    said = str(error)
    assert SECRET not in said
    assert "12345678901" not in said
    assert str(file) in said
    assert "'u'" in said
    assert "NoneType" not in said
    if case not in ("env without value", "says it"):  # a program that fails may do better next time
        assert (type(error), error.status) == (Refused, UNUSABLE)


PLACES = (
    ("current-context",),
    ("users",),
    ("clusters", 0, "cluster", "server"),
    ("clusters", 0, "cluster", "insecure-skip-tls-verify"),
    ("clusters", 0, "cluster", "certificate-authority-data"),
    ("contexts", 0, "context", "namespace"),
    ("users", 0, "user"),
    *(
        ("users", 0, "user", field)
        for field in ("token", "tokenFile", "username", "password", "as", "as-uid")
    ),
    *(("users", 0, "user", field) for field in ("as-groups", "as-user-extra", "client-key-data", "exec")),
    ("users", 0, "user", "auth-provider"),
    ("users", 0, "user", "auth-provider", "config"),
    ("users", 0, "user", "auth-provider", "config", "id-token"),
    *(("users", 0, "user", "exec", field) for field in ("command", "args", "env")),
    ("users", 0, "user", "exec", "env", 0),
    ("users", 0, "user", "exec", "env", 0, "name"),
    ("users", 0, "user", "exec", "env", 0, "value"),
)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_a_field_of_another_kind_is_named_without_what_it_holds(
    place: tuple[str | int, ...], tmp_path: Path
) -> None:
    user = {
        "auth-provider": {"name": "oidc", "config": {"id-token": SECRET}},
        "exec": {**EXEC, "env": [{"name": "A", "value": SECRET}]},
        "password": SECRET,
    }
    # Another field of a user or a variable is none of ours.
    values = (7, [[SECRET]], {"x": {"y": SECRET}})
    for value in values[: 2 if place[-1] == "user" else 3]:
        whole: Any = copy.deepcopy(content(user))
        node = whole
        for key in place[:-1]:
            node = node[key]
        node[place[-1]] = value
        file = written(tmp_path, whole)
        said = str(failure(file))
        assert SECRET not in said
        assert str(file) in said
        assert str([part for part in place if isinstance(part, str)][-1]).split("-data")[0] in said


def test_null_and_empty_fields_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    nothing = dict.fromkeys(
        ("client-certificate-data", "client-key", "tokenFile", "as", "exec", "auth-provider")
    )
    whole = content({**nothing, "username": "", "as-groups": None, "token": SECRET})
    whole["clusters"][0]["cluster"] |= {"certificate-authority": None, "insecure-skip-tls-verify": None}
    whole["contexts"][0]["context"]["namespace"] = None
    whole["preferences"] = whole["extensions"] = None
    assert header(written(tmp_path, whole)) == f"Bearer {SECRET}"


def test_a_program_s_variable_without_a_value_is_empty(tmp_path: Path) -> None:
    say = 'printf \'{"apiVersion": "%s", "kind": "ExecCredential", "status": {"token": "t%s"}}\' "$V" "$E"'
    run = {
        **EXEC,
        "args": ["-c", say],
        "env": [{"name": "V", "value": EXEC["apiVersion"]}, {"name": "E", "value": None}],
    }
    assert header(written(tmp_path, content({"exec": run}))) == "Bearer t"


@pytest.mark.parametrize("current", [None, "", "deleted", "broken"])
def test_a_context_that_is_named_needs_no_current_one(current: str | None, tmp_path: Path) -> None:
    whole = content()
    whole["contexts"].append({"name": "broken", "context": {"cluster": "gone", "user": "gone"}})
    whole["current-context"] = current
    file = written(tmp_path, whole)
    assert header(file, "here") == f"Bearer {SECRET}"
    del whole["current-context"]
    assert header(written(tmp_path, whole), "here") == f"Bearer {SECRET}"
    said = str(failure(file, "nowhere"))
    assert (
        said == f"kubeconfig {file}, context 'nowhere': there is no context 'nowhere': there are here, broken"
    )
    whole["current-context"] = current
    said = str(failure(written(tmp_path, whole)))
    assert ("no cluster 'gone': there is c" if current == "broken" else "there are here, broken") in said


def test_a_context_without_its_user_entry_is_refused(tmp_path: Path) -> None:
    whole = content()
    whole["contexts"][0]["context"]["user"] = "gone"
    assert "there is no user 'gone': there is u" in str(failure(written(tmp_path, whole)))


@pytest.mark.parametrize("other", ["", "# nothing\n", "{}", "apiVersion: v1\nkind: Config\nusers: null\n"])
def test_a_file_of_the_list_may_be_empty_or_absent(other: str, tmp_path: Path) -> None:
    file, empty = written(tmp_path, content()), written(tmp_path, other, "empty")
    for files in (f"{file}:{empty}", f"{empty}:{file}", f"{empty}:{tmp_path}/absent:{file}:"):
        assert header(files) == f"Bearer {SECRET}"
    error = failure(empty)
    assert (type(error), error.status) == (Refused, UNUSABLE)


def test_of_several_files_the_first_counts(tmp_path: Path) -> None:
    one = written(tmp_path, content({"token": "one"}))
    two = written(tmp_path, {**content({"token": "two"}, "there")}, "two")
    assert header(f"{one}:{two}") == "Bearer one"
    assert header(f"{two}:{one}") == "Bearer two"


def test_a_file_s_paths_are_relative_to_it_and_a_token_s_last_newline_is_none_of_it(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    written(tmp_path / "below", " t\r\n\n", "token")
    file = written(tmp_path / "below", content({"tokenFile": "token"}))
    assert header(f"{written(tmp_path, '', 'empty')}:{file}") == "Bearer t"
    (tmp_path / "below" / "token").unlink()
    both = written(tmp_path, content({"tokenFile": "gone", "token": "old"}))
    assert header(both) == "Bearer old"


def test_a_token_that_was_renewed_is_kept_in_its_file(tmp_path: Path) -> None:
    provider = {"name": "oidc", "config": {"id-token": "old", "refresh-token": "r", "client-id": None}}
    whole = {**content({"auth-provider": provider}), "mine": None}
    file = written(tmp_path, whole)
    found = Kubeconfig(str(file), "", os.environ)
    found.document()["users"][0]["user"]["auth-provider"]["config"]["id-token"] = "new"
    found.save_tokens(lambda document, out, **_: json.dump(document, out))
    provider["config"] = {"id-token": "new", "refresh-token": "r", "client-id": None}
    assert json.loads(file.read_text()) == whole


def test_whom_to_act_as_is_in_the_headers_as_client_go_has_them(tmp_path: Path) -> None:
    user = {
        "token": SECRET,
        "as": "jané",
        "as-uid": "17",
        "as-groups": ["a", "b"],
        "as-user-extra": {"example.com/x%": ["1", "2"]},
    }
    acting = login(written(tmp_path, content(user)))
    acting.access(Deadline.after(10.0))
    assert acting.headers() == {
        "Impersonate-User": ["jan\xc3\xa9"],
        "Impersonate-Uid": ["17"],
        "Impersonate-Group": ["a", "b"],
        "Impersonate-Extra-example.com%2Fx%25": ["1", "2"],
    }
    assert "Impersonate-User" in str(failure(written(tmp_path, content({**user, "as": "a\r\nHost: b"}))))
