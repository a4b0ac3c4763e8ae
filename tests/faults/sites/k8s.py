"""Kubernetes: one API server behind four proxies, asked as a pod asks it."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from tests.faults.contenders import CONTENDERS
from tests.faults.sites.site import Site
from tests.proxy import proxy
from tests.servers import kube, kubeaccess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.faults.sites.site import Record
    from tests.servers.kubeaccess import Namespace, Pod

RECORD = "singleton-run.dev/record"


class KubernetesSite(Site):
    """One server. A lock's name is that of its Lease, for the rounds' names are DNS names."""

    def __init__(self, name: str, server: kube.Server, namespace: Namespace, pod: Pod) -> None:
        super().__init__(name)
        self.server = server
        self.namespace = namespace
        self.pod = pod
        self.is_frozen = False

    def lock(self, contender: int, round_directory: Path) -> str:
        """By the service account; the contender's own proxy is in its environment."""
        return f"{self.name}://{self.namespace.name}?service-account={self.pod.folder}"

    def environ(self, contender: int) -> dict[str, str]:
        """The API server's address, as a pod has it."""
        return {**self.pod.environ, "KUBERNETES_SERVICE_PORT": str(self.proxies[contender].port)}

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
        pod = namespace.account().pod(folder / "pod")
        site = KubernetesSite(name, server, namespace, pod)
        site.proxies = [stack.enter_context(proxy(server.port)) for _ in range(CONTENDERS)]
        yield site
