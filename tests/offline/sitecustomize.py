"""Cut the network: any Python process started with this folder on its path can reach only itself.

Set ANNOTATOR_OFFLINE_LOG to a file that collects what was attempted.
"""

import os
import sys

_HERE = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", None)


def _refuse(event: str, arguments: tuple) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host in _HERE:
        return
    if log := os.environ.get("ANNOTATOR_OFFLINE_LOG"):
        with open(log, "a", encoding="utf-8") as file:  # noqa: PTH123  (pathlib is not wanted this early)
            file.write(f"{event} {host}\n")
    raise OSError(f"the network is cut: {event} {host}")


sys.addaudithook(_refuse)
