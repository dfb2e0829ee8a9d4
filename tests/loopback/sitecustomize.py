"""Keeps every Python that finds this on its path from leaving its own machine.

What asks for another address gets an error, and a line in the file that STRANGERS names, so that a
program that takes the error in its stride is found out as well.
"""

import os
import sys
from typing import Any

_HERE = ("127.", "::1", "::ffff:127.", "localhost", "0.0.0.0", "::")  # noqa: S104 - no server
# The place of the address among what each of them tells.
_ASKS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}


def _stay(event: str, told: tuple[Any, ...]) -> None:
    if event not in _ASKS:
        return
    address: Any = told[_ASKS[event]]
    if event.startswith("socket.get"):
        host = address
    elif isinstance(address, tuple):
        host = told[_ASKS[event]][0]
    else:
        return  # the name of a file, or none: the socket is connected
    name = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
    if name and not name.startswith(_HERE):
        _refuse(f"{event} {name}")


def _refuse(what: str) -> None:
    with open(os.environ["STRANGERS"], "a", encoding="utf-8") as file:  # noqa: PTH123
        file.write(f"{what}: {' '.join(sys.argv)} ({os.environ.get('PYTEST_CURRENT_TEST')})\n")
    raise ConnectionRefusedError(f"tests stay on their own machine: {what}")


if "STRANGERS" in os.environ:
    sys.addaudithook(_stay)
