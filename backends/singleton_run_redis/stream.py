"""A connection that never blocks, as a wire: what it can't send yet it keeps."""

from __future__ import annotations

from singleton_run.api.http.wire import Broken, check_connected, connecting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from singleton_run.api.deadline import Deadline
    from singleton_run.api.resolve import Address

_PIECE = 65536


class Stream:
    """A connection to `address`, which has begun when the constructor returns. See `wire.Wire`.

    No call waits. Each raises Broken; the constructor too.
    """

    def __init__(self, address: Address) -> None:
        self._socket = connecting(address)
        self._out = b""

    @property
    def descriptor(self) -> int:
        """The connection's."""
        return self._socket.fileno()

    @property
    def is_full(self) -> bool:
        """Whether there is something that can't be sent yet."""
        return bool(self._out)

    def check(self) -> None:
        """Raise Broken if the connection couldn't be made: to be asked once the descriptor can be written."""
        check_connected(self._socket)

    def send(self, data: bytes, deadline: Deadline | None = None) -> None:
        """Keep this for `flush`."""
        self._out += data

    def flush(self) -> None:
        """Send what the connection takes now."""
        try:
            while self._out:
                self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError as error:
            raise Broken(_reason(error)) from None

    def receive(self, deadline: Deadline | None = None) -> bytes:
        """The bytes that have come; empty at the end. Raises BlockingIOError where there are none."""
        try:
            return self._socket.recv(_PIECE)
        except BlockingIOError:
            raise
        except OSError as error:
            raise Broken(_reason(error)) from None

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
