"""Logging in by a kubeconfig, with the official `kubernetes` client, which is used for nothing else.

A login may take any time, because it may run a program or ask a server for a token. So it runs in a thread,
which we wait for until the deadline.
"""

from __future__ import annotations

import os

from singleton_run.api.background import Background
from singleton_run.api.deadline import Timeout
from singleton_run.api.toolbox import missing_package
from singleton_run.errors import UNUSABLE, Failure, Refused, Unavailable, fault
from singleton_run_k8s.kubeconfig import Kubeconfig
from singleton_run_k8s.login import Access, proxy_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from singleton_run.api.deadline import Deadline
    from singleton_run.api.http.proxy import Proxy
    from singleton_run.api.http.tls import Tls
    from singleton_run_k8s.address import Address

_DEFAULT = "~/.kube/config"
_ENDED = "exec: process returned "
_NO_TOKEN = ("", "Bearer", "Bearer None")


class KubeconfigLogin:
    """See `login.Login`."""

    def __init__(self, address: Address, environ: Mapping[str, str]) -> None:
        self._context = address.context
        self._environ = environ
        self._files = address.kubeconfig or os.path.expanduser(_DEFAULT)
        if not any(os.path.exists(os.path.expanduser(file)) for file in self._files.split(os.pathsep)):
            raise Refused(f"there is no kubeconfig at {self._files}: name one in KUBECONFIG", UNUSABLE)
        self._settings = _Settings()
        self._file: Kubeconfig | None = None
        self._header = ""
        self._access: Access | None = None
        self._work: _Work | None = None

    def access(self, deadline: Deadline) -> Access:
        """The way to the server of the named context, or of the current one."""
        if self._access is None:
            self._finish(deadline)
        if self._access is None:
            self._work = _Work(self._log_in)
            self._finish(deadline)
        if self._access is None:
            raise Unavailable("kubernetes: the login has not come to its end")
        return self._access

    def authorization(self, deadline: Deadline) -> str:
        """The token, or user and password.

        The next token is asked for minutes before this one expires. Where that fails or takes long, this one
        serves on until the server refuses it.
        """
        self.access(deadline)
        if self._work is None:
            self._work = _Work(self._ask_token)
        try:
            self._finish(deadline.share(2) if self._header else deadline)
        except Unavailable:
            if not self._header:
                raise
        return self._header

    def headers(self) -> Mapping[str, Sequence[str]]:
        """The user to act as, where the kubeconfig names one."""
        return self._file.headers if self._file is not None else {}

    def missing_credentials(self) -> str:
        """The reason why the kubeconfig gives no credentials; empty where it gives some."""
        if self._file is None or self._header or self._settings.cert_file:
            return ""
        return f"{self._file.user_place} gives no credentials: it names no token, certificate or program"

    def renew(self, refused: str, deadline: Deadline) -> bool:
        """Log in anew: files may have changed, and a program may give another token."""
        self.close()
        old, self._access = self._access, None
        new = self.access(deadline)
        if old is not None:
            new.client.recall(old.client.known())
        # A login without a token is by a certificate, which may be another one now.
        return self.authorization(deadline) != refused or not refused

    def close(self) -> None:
        """Drop the connection."""
        if self._access is not None:
            self._access.client.close()

    def _finish(self, deadline: Deadline) -> None:
        """Wait for the part of the login under way, if any, and raise its error."""
        work = self._work
        if work is None:
            return
        try:
            work.wait(deadline)
        except Timeout:
            raise Unavailable("kubernetes: the login by the kubeconfig takes too long") from None
        work.close()
        self._work = None
        if work.error is not None:
            raise work.error

    def _log_in(self) -> None:
        """Raises Refused, but Unavailable after an earlier login: the files may be changing just now."""
        try:
            self._log_in_by(_client())
        except Refused as refused:
            if self._file is None:
                raise
            raise Unavailable(str(refused)) from None

    def _log_in_by(self, config: Any) -> None:
        file = Kubeconfig(self._files, self._context, self._environ)
        # The executable that needs no Python has a part of the official client.
        if file.field in getattr(config, "LEFT_OUT", ()):
            raise Refused(
                f"{file.user_place}: {file.field} isn't in this executable: log in by exec, a token or a "
                "certificate, or take the package of Python (pip install 'singleton-run[k8s-lease]')",
                UNUSABLE,
            )
        settings = _Settings()
        try:
            with _LoggedErrors() as said:
                _load(config, file, settings)
            tls = _tls(settings, file) if settings.host.startswith("https://") else None
        finally:
            config.kube_config._cleanup_temp_files()  # noqa: SLF001 - else it waits for an exit that we skip
        header = settings.authorization()
        if file.field and not (header or settings.cert_file):
            raise _no_credentials(file, said.text)
        access = Access(settings.host, file.namespace, tls, self._proxy(settings))
        self._file, self._settings, self._header, self._access = file, settings, header, access

    def _ask_token(self) -> None:
        """Have the official client look when the token expires, and get the next one in time."""
        settings, file = self._settings, self._file
        if settings.refresh_api_key_hook is None or file is None:
            return
        with _LoggedErrors() as said:
            try:
                settings.refresh_api_key_hook(settings)
            except Exception as error:  # noqa: BLE001 - whatever it raises, its text may hold the login
                raise Unavailable(_failed(file, error)) from None
        if said.text:
            raise Unavailable(str(_no_credentials(file, said.text)))
        self._header = settings.authorization()

    def _proxy(self, settings: _Settings) -> Proxy | None:
        if not settings.proxy:
            return proxy_for(settings.host, self._environ)
        from singleton_run.api.http.proxy import parsed

        return parsed(settings.proxy, "the kubeconfig's proxy-url")


class _Settings:
    """In place of the official client's Configuration, which takes settings from elsewhere too."""

    def __init__(self) -> None:
        self.host = ""
        self.api_key: dict[str, str] = {}
        self.refresh_api_key_hook: Callable[[_Settings], None] | None = None
        self.ssl_ca_cert: str | None = None
        self.cert_file: str | None = None
        self.key_file: str | None = None
        self.tls_server_name: str | None = None
        self.verify_ssl = True
        self.proxy: str | None = None

    def authorization(self) -> str:
        """The header `Authorization`; empty for none."""
        # Earlier versions of the client have the token under the second name.
        header = self.api_key.get("BearerToken") or self.api_key.get("authorization") or ""
        return "" if header.strip() in _NO_TOKEN else header


class _LoggedErrors:
    """Within it, an error that the official client logs is put into `text`, and goes nowhere else."""

    def __init__(self) -> None:
        import logging

        self.text = ""
        self._root = logging.getLogger()
        self._handler = logging.Handler(logging.ERROR)
        setattr(self._handler, "emit", self._take)  # noqa: B010 - a class would need logging to be imported

    def _take(self, entry: Any) -> None:
        self.text = entry.getMessage()

    def __enter__(self) -> _LoggedErrors:  # noqa: PYI034 - typing's Self would be for nothing but this
        self._root.addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        self._root.removeHandler(self._handler)


class _Work(Background):
    """A part of the login under way. Once `done`, `error` is the Failure that it raised, if any."""

    def __init__(self, task: Callable[[], None]) -> None:
        self.error: Failure | None = None
        super().__init__(lambda: self._try(task))

    def _try(self, task: Callable[[], None]) -> None:
        try:
            task()
        except Failure as failure:
            self.error = failure
        except Exception as error:  # noqa: BLE001 - its text may hold the login
            self.error = Unavailable(f"kubeconfig: the login failed: {fault(error)}")


def _client() -> Any:
    """The official client's module for logging in. Raises Refused."""
    try:
        from kubernetes import config
    except ImportError as error:
        raise missing_package("a kubeconfig", "kubernetes", "k8s-lease", error) from None
    return config


def _load(config: Any, file: Kubeconfig, settings: _Settings) -> None:
    """Have the official client log in. Raises Refused, Unavailable."""
    kube_config = config.kube_config
    try:
        kube_config.KubeConfigLoader(
            config_dict=file.document(),
            config_base_path=file.folder,
            config_persister=lambda: file.save_tokens(kube_config.yaml.safe_dump),
        ).load_and_set(settings)
    except FileNotFoundError as error:
        if error.filename is not None:
            raise Refused(_failed(file, error), UNUSABLE) from None
        raise Refused(
            f"{file.place}: for the certificates inside, the official client needs a directory that it can "
            "write to: name one in TMPDIR",
            UNUSABLE,
        ) from None
    except OSError as error:  # also: the server of an identity provider can't be reached
        raise Unavailable(_failed(file, error)) from None
    except (config.ConfigException, AttributeError, LookupError, TypeError, ValueError) as error:
        raise Refused(_failed(file, error), UNUSABLE) from None
    except Exception as error:  # noqa: BLE001 - whatever it raises, its text may hold the login
        raise Unavailable(_failed(file, error)) from None


def _failed(file: Kubeconfig, error: Exception) -> str:
    return f"{file.user_place}: the login by its {file.field or 'cluster'} failed ({fault(error)})"


def _no_credentials(file: Kubeconfig, said: str) -> Failure:
    """The error for a login that gave no credentials. `said`, by the official client, may hold secrets."""
    if file.field == "exec" and said.startswith(_ENDED):
        status, _, words = said.removeprefix(_ENDED).partition(". ")
        told = f": {file.hidden(words)}" if words else ""
        return Unavailable(
            f"{file.user_place}: exec gave no credentials: the program ended with {status}{told}"
        )
    why = {
        "exec": "the program's answer is not an ExecCredential of the same apiVersion with a token "
        "or a certificate and its key",
        "auth-provider": "its id-token is not one that can be used: log in again",
    }.get(file.field, "it is not one that can be used")
    return Refused(f"{file.user_place}: {file.field} gave no credentials: {why}", UNUSABLE)


def _tls(settings: _Settings, file: Kubeconfig) -> Tls:
    from singleton_run.api.http.tls import Tls

    if not settings.verify_ssl:
        from singleton_run.api.toolbox import last_words

        last_words("the certificate of the API server is not checked: anybody may be answering in its place")
    try:
        return Tls(
            settings.ssl_ca_cert or "",
            settings.cert_file or "",
            settings.key_file or "",
            settings.tls_server_name or "",
            insecure=not settings.verify_ssl,
        )
    except Refused as refused:
        text = str(refused)
    # The official client puts certificates inside of the kubeconfig into temporary files.
    for path, field in ((settings.ssl_ca_cert, "certificate-authority"), (settings.cert_file, file.field)):
        if path and path in text:
            raise Refused(f"{file.user_place}: {field}: {text.replace(path, 'in it')}", UNUSABLE)
    raise Refused(f"{file.user_place}: {text}", UNUSABLE)
