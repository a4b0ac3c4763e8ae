"""The addresses of a host name, looked up in a thread, for the lookup itself knows no time limit.

Loaded only for names: an address needs no lookup.
"""

from __future__ import annotations

import _thread
import os

from singleton_run.http.connection import addresses
from singleton_run.http.patience import READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.http.connection import Address
    from singleton_run.http.patience import Patience


class Lookup:
    """A lookup under way. It is never stopped; a thread that hangs ends with the process."""

    def __init__(self, host: str, port: int) -> None:
        self.addresses: list[Address] = []
        self.error = ""
        self.done = False
        self._read, self._write = os.pipe()
        _thread.start_new_thread(self._run, (host, port))

    def _run(self, host: str, port: int) -> None:
        try:
            self.addresses = addresses(host, port, 0)
        except (OSError, UnicodeError) as error:
            self.error = getattr(error, "strerror", None) or str(error)
        self.done = True
        os.close(self._write)

    def wait(self, patience: Patience) -> None:
        """Wait until it is done. Raises Late, Woken."""
        if not self.done:
            patience.wait(self._read, READ)

    def close(self) -> None:
        """Forget it, once it is done."""
        os.close(self._read)
