"""A relay between a program and the service that notes when the request came and when the answer ended.

Only this way a test knows what half of an answer's time is without trusting the program's own start-up time.
"""

from __future__ import annotations

import socket
import threading
import time
from types import TracebackType


class Relay:
    """Listens on a free port of 127.0.0.1 and passes bytes to and from `port`, as they come.

    `asked_at` and `ended_at` are when the first byte was asked and the last one answered, in seconds of
    `time.monotonic()`.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.base_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.forget()

    def __enter__(self) -> Relay:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in (self._listener, *self._sockets):
            _end(each)
            each.close()

    def forget(self) -> None:
        """Begin anew with the times."""
        self.asked_at = 0.0
        self.ended_at = 0.0

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed: the test is over
                return
            service = socket.create_connection(("127.0.0.1", self._port))
            for each in (client, service):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, service]
            threading.Thread(target=self._pass, args=(client, service, True), daemon=True).start()
            threading.Thread(target=self._pass, args=(service, client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_question: bool) -> None:
        try:
            while data := source.recv(65536):
                if not is_question:
                    self.ended_at = time.monotonic()
                elif not self.asked_at:
                    self.asked_at = time.monotonic()
                target.sendall(data)
        except OSError:
            pass
        _end(target)


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # not connected any more, or never was
        return
