"""One context of kubeconfig files, read as kubectl does: merged, without nulls, paths made absolute.

Every error is told here, by file, context, entry and field, and never with the field's content. The official
client, which then logs in by the entries, puts whole entries into its errors.
"""

from __future__ import annotations

import base64
import os

from singleton_run.errors import UNUSABLE, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    Entry = dict[str, Any]

_USER_TEXTS = ("token", "tokenFile", "username", "password", "as", "as-uid")
_CLUSTER_TEXTS = ("server", "tls-server-name", "proxy-url")
_CLIENT_FILES = ("client-certificate", "client-key")
_RENEWED = ("id-token", "refresh-token", "access-token", "expiry")
_LEAST_SECRET = 4


class Kubeconfig:
    """The entries of `context`, or of the current one where that is empty. Raises Refused (78).

    `place` and `user_place` name the entries in a sentence. `headers`, for every request, name the user to
    act as. `folder` is that of the cluster's file. `field` is the one of the user entry that logs in, empty
    for none.
    """

    def __init__(self, files: str, context: str, environ: Mapping[str, str]) -> None:
        self._files = [_File(path) for path in _paths(files)]
        self.place = f"kubeconfig {files}"
        if not any(file.document for file in self._files):
            self._refuse("there is nothing in it: name another in KUBECONFIG")
        name = context or self._current()
        self._name = name
        self.place = f"kubeconfig {files}, context {name!r}"
        entry = self._found("contexts", name)[1]
        self.namespace = _text(self.place, entry, "namespace") or "default"
        self._cluster_name = _text(self.place, entry, "cluster")
        if not self._cluster_name:
            self._refuse("it names no cluster")
        file, cluster = self._found("clusters", self._cluster_name)
        self.folder = file.folder
        self._cluster = _cluster(f"{self.place}, cluster entry {self._cluster_name!r}", cluster, file)
        user = _text(self.place, entry, "user")
        self.user_place = f"{self.place}, user entry {user!r}" if user else self.place
        self._user_file, self._user_name, self._user = file, user, {}
        if user:
            self._user_file, found = self._found("users", user)
            self._user = _user(self.user_place, found, self._user_file, self.folder, environ)
        self.headers = _impersonation(self.user_place, self._user)
        self.field = _login_field(self._user)

    def document(self) -> Entry:
        """The entries as a kubeconfig of their own, for the official client, which may change it."""
        context = {"cluster": self._cluster_name, "namespace": self.namespace, "user": self._user_name}
        return {
            "current-context": self._name,
            "contexts": [{"name": self._name, "context": context}],
            "clusters": [{"name": self._cluster_name, "cluster": self._cluster}],
            "users": [{"name": self._user_name, "user": self._user}] if self._user else [],
        }

    def save_tokens(self, dump: Any) -> None:
        """Write the renewed tokens of the document's `auth-provider` into the user entry's file.

        `dump` is yaml's. Where the file can't be written, the tokens serve this process alone.
        """
        renewed = self._user["auth-provider"]["config"]
        saved = self._user_file.raw("users", self._user_name)["auth-provider"]["config"]
        saved.update({key: renewed[key] for key in _RENEWED if key in renewed})
        try:
            with open(self._user_file.path, "w", encoding="utf-8") as file:
                dump(self._user_file.document, file, default_flow_style=False)
        except OSError:
            return

    def hidden(self, text: str) -> str:
        """A login program's `text` in one line, with the user entry's secrets as `***`."""
        run = self._user.get("exec", {})
        secrets = [value for key, value in self._user.items() if isinstance(value, str) and key != "username"]
        secrets += [item["value"] for item in run.get("env", [])] + run.get("args", [])
        for secret in sorted(secrets, key=len, reverse=True):
            if len(secret) >= _LEAST_SECRET:
                text = text.replace(secret, "***")
        return " ".join(text.split())

    def _current(self) -> str:
        for file in self._files:
            name = _text(self.place, file.document, "current-context")
            if name:
                return name
        return self._refuse(
            f"no context is the current one: name one as ?context=NAME{self._known('contexts')}"
        )

    def _found(self, kind: str, name: str) -> tuple[_File, Entry]:
        """The entry with that name and its file: the first of several, as kubectl does."""
        for file in self._files:
            if name in file.names(kind):
                return file, file.entry(kind, name)
        word = kind.removesuffix("s")
        return self._refuse(f"there is no {word} {name!r}{self._known(kind)}")

    def _known(self, kind: str) -> str:
        names = dict.fromkeys(name for file in self._files for name in file.names(kind))
        return f": there {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if names else ""

    def _refuse(self, why: str) -> NoReturn:
        raise Refused(f"{self.place}: {why}", UNUSABLE)


class _File:
    """One file. Raises Refused (78) if it isn't YAML. An empty file has no entries."""

    def __init__(self, path: str) -> None:
        import yaml

        self.path = path
        self.folder = os.path.dirname(os.path.abspath(path))
        self._place = f"kubeconfig {path}"
        try:
            with open(path, "rb") as file:
                found = yaml.safe_load(file.read())
        except OSError as error:
            raise Refused(f"{self._place} can't be read: {error.strerror}", UNUSABLE) from None
        except Exception as error:  # noqa: BLE001 - yaml raises ValueError, RecursionError and more for what isn't YAML
            mark = getattr(error, "problem_mark", None)
            where = f" (line {mark.line + 1})" if mark is not None else ""
            raise Refused(f"{self._place} is not YAML{where}", UNUSABLE) from None
        if found is not None and not isinstance(found, dict):
            raise Refused(f"{self._place} is not one: it must say contexts, clusters and users", UNUSABLE)
        self.document: Entry = found or {}
        self._lists = {kind: self._list(kind) for kind in ("contexts", "clusters", "users")}

    def names(self, kind: str) -> list[str]:
        """The names of all entries of a kind."""
        return [item["name"] for item in self._lists[kind]]

    def raw(self, kind: str, name: str) -> Entry:
        """An entry as it is in the document, which the caller may change."""
        item = next(item for item in self._lists[kind] if item["name"] == name)
        found: Entry = item.get(kind.removesuffix("s")) or {}
        return found

    def entry(self, kind: str, name: str) -> Entry:
        """An entry without its null or empty fields, which count as missing."""
        found = self.raw(kind, name)
        if not isinstance(found, dict):
            raise Refused(f"{self._place}: {kind.removesuffix('s')} {name!r} is not of fields", UNUSABLE)
        whole: Entry = _whole(found)
        return whole

    def _list(self, kind: str) -> list[Entry]:
        items = self.document.get(kind) or []
        if not isinstance(items, list):
            raise Refused(f"{self._place}: {kind} is not a list", UNUSABLE)
        for number, item in enumerate(items, 1):
            if not isinstance(item, dict) or not isinstance(item.get("name"), str):
                raise Refused(f"{self._place}: the item {number} of {kind} has no name", UNUSABLE)
        return items


def _paths(files: str) -> list[str]:
    """The paths in the list that exist: kubectl ignores the others."""
    paths = [os.path.expanduser(file) for file in files.split(os.pathsep) if file]
    return [path for path in paths if os.path.exists(path)]


def _whole(value: Any) -> Any:
    """`value` without null and empty fields."""
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items() if item is not None and item != ""}
    if isinstance(value, list):
        return [_whole(item) for item in value if item is not None]
    return value


def _text(place: str, entry: Mapping[str, Any], field: str) -> str:
    value = entry.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Refused(f"{place}: {field} is not a text: put it in quotes", UNUSABLE)
    return value


def _texts(place: str, entry: Mapping[str, Any], field: str) -> list[str]:
    value = entry.get(field, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refused(f"{place}: {field} is not a list of texts", UNUSABLE)
    return value


def _map(place: str, entry: Mapping[str, Any], field: str) -> Entry:
    value = entry.get(field, {})
    if not isinstance(value, dict):
        raise Refused(f"{place}: {field} is not of fields", UNUSABLE)
    return value


def _file_or_data(place: str, entry: Entry, field: str, folder: str) -> None:
    """Check a certificate or key: data in base64, or a file, whose path is made absolute."""
    data, path = _text(place, entry, f"{field}-data"), _text(place, entry, field)
    try:
        base64.standard_b64decode(data)
    except ValueError:
        raise Refused(f"{place}: {field}-data is not in base64", UNUSABLE) from None
    if data:
        entry.pop(field, None)
    elif path:
        entry[field] = os.path.join(folder, path)
        if not os.path.isfile(entry[field]):
            raise Refused(f"{place}: {field}: there is no file {entry[field]}", UNUSABLE)


def _cluster(place: str, entry: Entry, file: _File) -> Entry:
    for field in _CLUSTER_TEXTS:
        _text(place, entry, field)
    if "server" not in entry:
        raise Refused(f"{place}: it has no server", UNUSABLE)
    if "@" in entry["server"]:
        raise Refused(f"{place}: server must be https://HOST:PORT, without a user", UNUSABLE)
    if not isinstance(entry.get("insecure-skip-tls-verify", False), bool):
        raise Refused(f"{place}: insecure-skip-tls-verify must be true or false", UNUSABLE)
    _file_or_data(place, entry, "certificate-authority", file.folder)
    return entry


def _user(place: str, entry: Entry, file: _File, work: str, environ: Mapping[str, str]) -> Entry:
    for field in _USER_TEXTS:
        _text(place, entry, field)
    for field in _CLIENT_FILES:
        _file_or_data(place, entry, field, file.folder)
    cert, key = (field in entry or f"{field}-data" in entry for field in _CLIENT_FILES)
    if cert and not key:
        raise Refused(f"{place}: client-certificate is of no use without client-key", UNUSABLE)
    if "username" in entry:
        entry.setdefault("password", "")
    if "tokenFile" in entry:
        entry["token"] = _token(place, os.path.join(file.folder, entry.pop("tokenFile")), entry)
    if "exec" in entry:
        _program(f"{place}, exec", _map(place, entry, "exec"), file.folder, work, environ)
    if "auth-provider" in entry:
        _provider(f"{place}, auth-provider", _map(place, entry, "auth-provider"))
    return entry


def _token(place: str, path: str, entry: Mapping[str, str]) -> str:
    token = ""
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except OSError as error:
        why = f"the file {path} can't be read: {error.strerror}"
    except UnicodeError:
        why = f"the file {path} has no token in it"
    else:
        why = "" if token else f"the file {path} is empty"
    if not why:
        return token
    if "token" in entry:  # kubectl uses it while the file can't be read
        return entry["token"]
    raise Refused(f"{place}: tokenFile: {why}", UNUSABLE)


def _program(place: str, run: Entry, folder: str, work: str, environ: Mapping[str, str]) -> None:
    from shutil import which

    for field in ("command", "apiVersion"):
        if not _text(place, run, field):
            raise Refused(f"{place}: {field} is missing", UNUSABLE)
    _texts(place, run, "args")
    items = run.get("env", [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Refused(f"{place}: env is not a list of names and values", UNUSABLE)
    variables = {"PATH": environ.get("PATH", os.defpath)}
    for item in items:
        if not _text(f"{place}, env", item, "name"):
            raise Refused(f"{place}: an item of env has no name", UNUSABLE)
        item["value"] = _text(f"{place}, env {item['name']!r}", item, "value")
        variables[item["name"]] = item["value"]
    command = run["command"]
    if "/" in command:
        command = run["command"] = os.path.join(folder, command)
    if which(command, path=variables["PATH"]) is None or not os.path.isdir(work):
        raise Refused(
            f"{place}: the program {command!r} that logs in is not there, or may not be executed: "
            "install it, or put its folder into PATH",
            UNUSABLE,
        )


def _provider(place: str, provider: Entry) -> None:
    name = _text(place, provider, "name")
    config = provider["config"] = _map(place, provider, "config")
    if name not in ("oidc", "gcp"):
        raise Refused(f"{place}: {name!r} is not known any more, to kubectl neither: use exec", UNUSABLE)
    for field in config:
        if field != "expiry":
            _text(f"{place}, config", config, field)
    if name == "oidc" and "id-token" not in config:
        raise Refused(f"{place}, config: id-token is missing: log in again", UNUSABLE)


def _login_field(user: Mapping[str, Any]) -> str:
    """The field by which the official client logs in: the first of these that is there."""
    fields = ("auth-provider", "token", "exec", "username", "client-certificate", "client-certificate-data")
    return next((field for field in fields if field in user), "")


def _impersonation(place: str, user: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """client-go's headers for acting as another user, each with all of its values."""
    name, uid = _text(place, user, "as"), _text(place, user, "as-uid")
    groups, extra = _texts(place, user, "as-groups"), _map(place, user, "as-user-extra")
    if not name:
        if uid or groups or extra:
            raise Refused(f"{place}: as-uid, as-groups and as-user-extra need as", UNUSABLE)
        return {}
    headers: dict[str, Sequence[str]] = {"Impersonate-User": [name]}
    if uid:
        headers["Impersonate-Uid"] = [uid]
    if groups:
        headers["Impersonate-Group"] = groups
    for key in extra:
        headers[f"Impersonate-Extra-{_header_name(str(key))}"] = _texts(f"{place}, as-user-extra", extra, key)
    for header, values in headers.items():
        if not all(value.isprintable() for value in values):
            raise Refused(f"{place}: what stands in {header} has characters that no name has", UNUSABLE)
    return {
        header: [value.encode().decode("latin-1") for value in values] for header, values in headers.items()
    }


def _header_name(key: str) -> str:
    """`key` with each character that a header's name can't have, and %, as %XX."""
    legal = "!#$&'*+-.^_`|~"
    letters = (chr(byte) for byte in key.encode())
    return "".join(
        letter if letter.isascii() and (letter.isalnum() or letter in legal) else f"%{ord(letter):02X}"
        for letter in letters
    )
