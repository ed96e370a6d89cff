"""Client of Syncline's TCP protocol: nothing is lost and nothing is taken twice.

Needs Python 3.9 and nothing else. Events are numbered and kept until the server acknowledges
them; when the connection breaks, the client connects again, learns from the welcome what the
server has, and sends the rest.

    from syncline_client import Client

    with Client("127.0.0.1", 7400, producer="billing", on_reject=print) as client:
        client.send({"operation": "UPDATE", "record_id": "c-42", "data": {"status": "active"}})
"""

import collections
import json
import random
import selectors
import socket
import time
from dataclasses import dataclass
from typing import Any, Callable, Deque, Mapping, Optional, Tuple, Union

__all__ = [
    "Client",
    "Reject",
    "SynclineError",
    "EventError",
    "ForgottenError",
    "GaveUpError",
    "ProtocolError",
    "RefusedError",
    "ReplacedError",
]

EVENT_BYTES_MAX = 1 << 20
"""The largest event the server takes."""

_SEND_BYTES = 64 << 10  # events are collected to this size before a system call
_ANSWER_BYTES_MAX = 64 << 10  # an answer longer than this is not the protocol
_WAIT_MAX = 1.0  # seconds that one wait for the socket lasts


class SynclineError(Exception):
    """The client has stopped. Events not acknowledged may or may not be durable; the next client
    of the same producer learns it from its welcome."""


class EventError(ValueError):
    """This event cannot be sent. Nothing was, and the client goes on."""


class RefusedError(SynclineError):
    """The server ended the session for good; ``code`` says why."""

    def __init__(self, code: str, detail: Optional[str]) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class ReplacedError(SynclineError):
    """Another client connected under this producer's name."""


class ForgottenError(SynclineError):
    """The server's count does not fit what it acknowledged, or what was sent from here."""


class ProtocolError(SynclineError):
    """What answered does not speak this protocol."""


class GaveUpError(SynclineError):
    """The retry policy gave up; the message says on what."""


@dataclass(frozen=True)
class Reject:
    """One event that the server refused for good."""

    seq: int
    code: str
    detail: str
    pointer: Optional[str] = None


class _Broken(Exception):
    """The connection is of no use any more; worth another."""


def default_retry(failures: int, failing_seconds: float) -> Optional[float]:
    """Waits 0.1 s, doubled up to 5 s, with jitter; gives up after a minute without progress."""
    if failing_seconds > 60:
        return None
    return min(5.0, 0.1 * 2 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)


class Client:
    """Sends the events of one producer. Not to be shared between threads.

    ``on_reject`` is called with a :class:`Reject` for each event refused for good, from within
    the methods of this class. ``retry`` is called after each failure with the number of failures
    and the seconds since the first, both since the last progress, and returns the seconds to
    wait, or ``None`` to give up.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 7400,
        *,
        producer: str,
        key: Optional[str] = None,
        on_reject: Optional[Callable[[Reject], None]] = None,
        unacked_bytes_max: int = 8 << 20,
        connect_timeout: float = 10.0,
        retry: Callable[[int, float], Optional[float]] = default_retry,
    ) -> None:
        self._address = (host, port)
        self._hello: dict = {"producer": producer}
        if key is not None:
            self._hello["key"] = key
        self._on_reject = on_reject
        self._unacked_bytes_max = unacked_bytes_max
        self._connect_timeout = connect_timeout
        self._retry = retry

        self._socket: Optional[socket.socket] = None
        self._selector: Optional[selectors.BaseSelector] = None
        self._received = b""
        self._out = bytearray()
        self._welcome: Optional[int] = None  # of the connection being opened
        self._acked: Optional[int] = None  # unknown before the first welcome
        self._unacked: Deque[bytes] = collections.deque()  # encoded, oldest first
        self._unacked_bytes = 0
        self._written = 0  # how many of them went into this connection's output
        self._unwritten_bytes = 0
        self._failures = 0
        self._failing_since: Optional[float] = None
        self._connect(None)

    @property
    def last_seq(self) -> int:
        """Highest number acknowledged; at first the welcome's."""
        assert self._acked is not None
        return self._acked

    @property
    def unacked(self) -> int:
        """Events sent and not acknowledged."""
        return len(self._unacked)

    def send(self, event: Union[Mapping[str, Any], str, bytes]) -> int:
        """Numbers one event and sends it soon; waits while too much is unacknowledged.

        ``event`` is a mapping, or JSON text of one line. It must not name a ``seq`` of its own.
        Returns the event's number.
        """
        line = _encode(event)
        while self._unacked and self._unacked_bytes + len(line) > self._unacked_bytes_max:
            self._turn(_WAIT_MAX)
        self._unacked.append(line)
        self._unacked_bytes += len(line)
        self._unwritten_bytes += len(line)
        seq = self.last_seq + len(self._unacked)
        if self._unwritten_bytes >= _SEND_BYTES:
            self._turn(0)
        return seq

    def push(self) -> None:
        """Writes what was collected, without waiting for acknowledgements. To be called when the
        next event may be long in coming."""
        while self._socket is None or self._unwritten_bytes or self._out:
            self._turn(_WAIT_MAX)

    def flush(self) -> None:
        """Waits until every event is acknowledged or refused."""
        while self._unacked:
            self._turn(_WAIT_MAX)

    def close(self) -> None:
        """Closes the connection at once; to lose nothing, :meth:`flush` first."""
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def _turn(self, wait: float) -> None:
        """Writes and reads what can be; waits up to ``wait`` seconds when that is nothing."""
        if self._socket is None:
            self._connect(None)
            return
        try:
            while self._written < len(self._unacked) and len(self._out) < 2 * _SEND_BYTES:
                line = self._unacked[self._written]
                self._out += line
                self._written += 1
                self._unwritten_bytes -= len(line)
            self._exchange(wait)
        except _Broken as broken:
            self._connect(str(broken))

    def _exchange(self, wait: float) -> None:
        assert self._socket is not None
        assert self._selector is not None
        writing = selectors.EVENT_WRITE if self._out else 0
        self._selector.modify(self._socket, selectors.EVENT_READ | writing)
        ready = 0
        for _, events in self._selector.select(wait):
            ready |= events
        if ready & selectors.EVENT_READ:
            try:
                received = self._socket.recv(_SEND_BYTES)
            except BlockingIOError:
                pass
            except OSError as error:
                raise _Broken(str(error)) from error
            else:
                if not received:
                    raise _Broken("the server closed the connection")
                self._hear(received)
        if ready & selectors.EVENT_WRITE:
            try:
                count = self._socket.send(memoryview(self._out)[: 4 * _SEND_BYTES])
            except BlockingIOError:
                return
            except OSError:
                # The server may have said why it closed: the next read tells.
                self._out.clear()
                return
            del self._out[:count]

    def _hear(self, received: bytes) -> None:
        *lines, self._received = (self._received + received).split(b"\n")
        for line in lines:
            answer = _parse(line)
            if answer is None:
                raise self._stop(ProtocolError(f"the server said {line[:100]!r}"))
            self._on_answer(*answer)
        if len(self._received) > _ANSWER_BYTES_MAX:
            raise self._stop(ProtocolError("the server's line has no end"))

    def _on_answer(self, kind: str, body: Any) -> None:
        if kind == "ack":
            self._ack(body)
        elif kind == "welcome":
            self._welcome = body
        elif kind == "error":
            self._on_error(*body)
        elif kind == "retry":
            raise _Broken(f"{body.code}: {body.detail}")
        elif self._on_reject is not None:
            try:
                self._on_reject(body)
            except BaseException:
                self.close()  # what follows in this read would be lost: connect anew
                raise

    def _on_error(self, code: str, detail: Optional[str], retry: bool) -> None:
        if code == "replaced":
            raise self._stop(ReplacedError("another client connected under this name"))
        if retry or code == "timeout":
            raise _Broken(f"{code}: {detail}" if detail else code)
        raise self._stop(RefusedError(code, detail))

    def _ack(self, seq: int) -> None:
        count = seq - self.last_seq
        if count > len(self._unacked):
            raise self._stop(ProtocolError(f"event {seq} was acknowledged and never sent"))
        if count <= 0:
            return
        for index in range(count):
            line = self._unacked.popleft()
            self._unacked_bytes -= len(line)
            if index >= self._written:  # a welcome can cover what this connection has not sent
                self._unwritten_bytes -= len(line)
        self._written = max(0, self._written - count)
        self._acked = seq
        self._note_progress()

    def _note_progress(self) -> None:
        self._failures = 0
        self._failing_since = None

    def _stop(self, error: SynclineError) -> SynclineError:
        self.close()
        return error

    def _connect(self, failure: Optional[str]) -> None:
        """Connects until it works or the policy gives up; ``failure`` says what broke."""
        while True:
            self.close()
            if failure is not None:
                self._wait_after(failure)
            try:
                self._open()
                return
            except (OSError, _Broken) as error:
                failure = str(error) or type(error).__name__

    def _wait_after(self, failure: str) -> None:
        now = time.monotonic()
        self._failures += 1
        if self._failing_since is None:
            self._failing_since = now
        wait = self._retry(self._failures, now - self._failing_since)
        if wait is None:
            raise GaveUpError(f"after {self._failures} failures: {failure}")
        time.sleep(wait)

    def _open(self) -> None:
        self._socket = socket.create_connection(self._address, self._connect_timeout)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._received = b""
        self._welcome = None
        self._out = bytearray(_dump({"hello": self._hello}))
        deadline = time.monotonic() + self._connect_timeout
        while self._welcome is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _Broken("no welcome came")
            self._exchange(left)
        self._resume(self._welcome)

    def _resume(self, last_seq: int) -> None:
        if self._acked is None:
            self._acked = last_seq
            self._note_progress()
            return
        if not self._acked <= last_seq <= self._acked + len(self._unacked):
            raise self._stop(
                ForgottenError(
                    f"the server is at event {last_seq}; {self._acked} were acknowledged and "
                    f"{len(self._unacked)} more sent"
                )
            )
        self._ack(last_seq)
        self._written = 0
        self._unwritten_bytes = self._unacked_bytes
        if not self._unacked:
            self._note_progress()


def _encode(event: Union[Mapping[str, Any], str, bytes]) -> bytes:
    """One line. What would not be one, or not one event, is refused here."""
    if isinstance(event, Mapping):
        if "seq" in event:
            raise EventError("the client numbers the events: seq must be absent")
        try:
            line = _dump(event)
        except (TypeError, ValueError) as error:
            raise EventError(str(error)) from error
    else:
        text = event.encode() if isinstance(event, str) else bytes(event)
        line = text.strip() + b"\n"
        if line == b"\n" or b"\n" in line[:-1]:
            raise EventError("an event must be one line of JSON")
    if len(line) > EVENT_BYTES_MAX + 1:
        raise EventError("an event may have 1 MiB")
    return line


def _parse(line: bytes) -> Optional[Tuple[str, Any]]:
    """What the server says, or ``None`` when it is not this protocol."""
    try:
        ((kind, body),) = json.loads(line).items()
        if kind == "ack":
            return kind, int(body["seq"])
        if kind == "welcome":
            return kind, int(body["last_seq"])
        if kind == "error":
            return kind, (body["code"], body.get("detail"), bool(body.get("retry")))
        if kind == "reject":
            reject = Reject(body["seq"], body["code"], body["detail"], body.get("pointer"))
            return ("retry" if body.get("retry") else "reject"), reject
    except (ValueError, AttributeError, KeyError, TypeError):
        pass
    return None


def _dump(value: Any) -> bytes:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"
