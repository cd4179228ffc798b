"""Have a run done by a copy of the warm process, and end as the copy does.

    python -I -S ask.py NAME

is what Prefect's runner starts in place of `python -m prefect.engine`; NAME is the warm process's socket. If there can
be no copy, this process becomes `python -m prefect.engine`. It imports little, since it starts with each run.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from contextlib import suppress

ANSWER_SECONDS = 120.0  # a process that is renewed imports for two seconds, longer on a busy machine
STARTED, AGAIN, REFUSED = b"s", b"a", b"r"
SIZE = 4  # bytes of numbers
_TRIES = 2  # the second is for the process that was renewed


def main(name: str) -> None:
    """Run the flow run that the environment names; does not return."""
    for _ in range(_TRIES):
        with socket.socket(socket.AF_UNIX) as connection:
            answer, refused = _asked(connection, name)
            if answer == STARTED:
                _end_as(_waited(connection))
        if answer != AGAIN:
            break
    print(f"this run imports all it needs itself: {refused}", file=sys.stderr, flush=True)  # noqa: T201
    os.execv(sys.executable, [sys.executable, "-m", "prefect.engine"])  # noqa: S606  # as Prefect starts a run


def _asked(connection: socket.socket, name: str) -> tuple[bytes, str]:
    """Ask for a run with this process's folder, environment, input and outputs; return the answer, and why if not."""
    wanted = [os.fsencode(os.getcwd()), *(b"%s=%s" % one for one in os.environb.items())]  # noqa: PTH109
    message = b"\0".join(wanted)
    connection.settimeout(ANSWER_SECONDS)
    try:
        connection.connect(f"\0{name}")
        socket.send_fds(connection, [len(message).to_bytes(SIZE, "big")], [0, 1, 2])
        connection.sendall(message)
        answer = connection.recv(1)
        reason = connection.recv(4096).decode() if answer == REFUSED else ""
    except OSError as error:
        return b"", f"the warm process does not answer ({error})"
    return answer, reason or ("code has changed again" if answer else "the warm process has ended")


def _waited(connection: socket.socket) -> int:
    """Wait for the end of the run, hand on SIGTERM, and return its exit code, negative for a signal."""

    def hand_on(number: int, _: object) -> None:
        with suppress(OSError):
            connection.sendall(bytes([number]))

    connection.settimeout(None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to the run, too
    signal.signal(signal.SIGTERM, hand_on)
    code = b""
    with suppress(OSError):
        code = connection.recv(SIZE)
    if len(code) < SIZE:  # the warm process was killed, and its copies with it
        return -signal.SIGKILL
    return int.from_bytes(code, "big", signed=True)


def _end_as(code: int) -> None:
    if code < 0:
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(sys.argv[1])
