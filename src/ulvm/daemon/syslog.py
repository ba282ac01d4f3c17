"""Warnings in the system's log, where the administrator looks for dmeventd's (syslog(3), RFC 3164).

The daemon must not wait for the system's log, whose file may lie on a volume that the daemon
serves: what cannot be sent at once is dropped. (logging.handlers.SysLogHandler waits.) The daemon's
own log has all messages.
"""

from __future__ import annotations

import logging
import os
import socket

__all__ = ["log_to_syslog"]

_SOCKET = "/dev/log"
_DAEMON = 3 << 3
_WARNING, _ERR = 4, 3


class _Handler(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._ident = f"ulvmd[{os.getpid()}]"

    def emit(self, record: logging.LogRecord) -> None:
        level = _ERR if record.levelno >= logging.ERROR else _WARNING
        text = f"<{_DAEMON | level}>{self._ident}: {record.getMessage()}"
        try:
            data = text.encode(errors="backslashreplace")  # as in the daemon's own log
            self._sock.sendto(data, socket.MSG_DONTWAIT, _SOCKET)
        except OSError:
            return  # full, or nobody listens: dropped

    def close(self) -> None:
        self._sock.close()
        super().close()


def log_to_syslog() -> None:
    """From now on, as long as the process lives."""
    logging.getLogger().addHandler(_Handler())
