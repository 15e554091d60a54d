"""Writes ConfigMaps through the API until it is told to stop, and remembers which were acknowledged.

Started by a test with ``python api_writer.py URL CA CERTIFICATE KEY``; a line on standard input ends it.
Prints one JSON object: the acknowledged names, and the longest time between two of them in seconds.
"""

from __future__ import annotations

import http.client
import json
import select
import ssl
import sys
import time
from urllib.parse import urlsplit

_TIMEOUT_SECONDS = 5


def write_until_told(host: str, port: int, path: str, context: ssl.SSLContext) -> tuple[list[str], float]:
    acknowledged: list[str] = []
    longest, last, number = 0.0, time.monotonic(), 0
    connection: http.client.HTTPSConnection | None = None
    while not select.select([sys.stdin], [], [], 0.02)[0]:
        number += 1
        body = json.dumps({"metadata": {"name": f"write-{number}"}, "data": {"number": str(number)}})
        try:
            connection = connection or http.client.HTTPSConnection(
                host, port, timeout=_TIMEOUT_SECONDS, context=context
            )
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            if connection is not None:
                connection.close()
            connection = None
            continue
        if answer.status == 201:
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            acknowledged.append(f"write-{number}")
    return acknowledged, max(longest, time.monotonic() - last)


def main() -> None:
    url, ca, certificate, key = urlsplit(sys.argv[1]), *sys.argv[2:5]
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    acknowledged, longest = write_until_told(url.hostname or "", url.port or 443, url.path, context)
    print(json.dumps({"acknowledged": acknowledged, "longest": longest}))


if __name__ == "__main__":
    main()
