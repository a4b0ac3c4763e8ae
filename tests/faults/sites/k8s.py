"""Kubernetes: one API server behind four proxies, asked as a pod asks it."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.faults.contenders import CONTENDERS
from tests.faults.sites.site import Site
from tests.servers import kube, kubeaccess
from tests.support.proxy import proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.sites.site import Record
    from tests.servers.kubeaccess import Namespace

RECORD = "singleton-run.dev/record"


class KubernetesSite(Site):
    """One server. A lock's name is that of its Lease, for the rounds' names are DNS names."""

    def __init__(self, name: str, server: kube.Server, namespace: Namespace, folder: Path) -> None:
        super().__init__(name)
        account = namespace.account()
        self.server = server
        self.namespace = namespace
        self.folder = folder
        self.pod = account.pod(folder / "pod")
        self.kubeconfig = account.token_kubeconfig(folder)
        self.is_frozen = False

    def lock(self, contender: int, round_directory: Path) -> str:
        """By the service account; the contender's own proxy is in its environment."""
        return f"{self.name}://{self.namespace.name}?service-account={self.pod.folder}"

    def environ(self, contender: int) -> dict[str, str]:
        """The API server's address, as a pod has it, and a kubeconfig for who knows no other login."""
        port = self.proxies[contender].port
        kubeconfig = self.folder / f"{contender}.kubeconfig"
        kubeconfig.write_text(self.kubeconfig.read_text().replace(f":{self.server.port}", f":{port}"))
        own = {"KUBERNETES_SERVICE_PORT": str(port), "KUBECONFIG": str(kubeconfig)}
        return {**self.pod.environ, **own}

    def crash(self) -> None:
        """SIGKILL."""
        self.server.kill()

    def freeze(self) -> None:
        """SIGSTOP."""
        self.server.send(signal.SIGSTOP)
        self.is_frozen = True

    def heal(self) -> None:
        """Whatever was done is undone; it is started if it has ended."""
        if self.is_frozen:
            self.is_frozen = False
            self.server.send(signal.SIGCONT)
        if self.server.process is None:
            self.server.start()
        self.server.serves()

    def record(self, name: str, round_directory: Path) -> Record:
        """The record in the Lease."""
        lease = self.namespace.lease(name) or {"metadata": {}}
        return dict(json.loads(lease["metadata"].get("annotations", {}).get(RECORD, "{}")))

    def delete(self, name: str, round_directory: Path) -> None:
        """Somebody deletes the Lease by hand."""
        self.namespace.delete_lease(name)

    def overwrite(self, name: str, round_directory: Path) -> None:
        """Somebody gives the Lease to somebody else, for a second."""
        self.namespace.take_lease(name, 1, "somebody")


@contextmanager
def opened(name: str, world: str, folder: Path) -> Iterator[Site]:
    """One server; there is no other state of it."""
    with ExitStack() as stack:
        server = stack.enter_context(kube.running(folder))
        namespace = kubeaccess.own(server).namespace()
        site = KubernetesSite(name, server, namespace, folder)
        site.proxies = [stack.enter_context(proxy(server.port)) for _ in range(CONTENDERS)]
        yield site
