"""Asks many questions over HTTPS inside the network namespace of a control plane: JSON lines in and out.

Started by tests with ``python asking.py CA-FILE``; standard library only, one process for all questions.
"""

from __future__ import annotations

import json
import ssl
import sys
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from typing import Any

#: longer answers are cut
MAX_ANSWER = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Question:
    """One request. ``certificate`` and ``key`` are files, ``token`` is a bearer token; none is anonymous."""

    url: str
    method: str = "GET"
    body: dict[str, Any] | None = None
    token: str | None = None
    certificate: str | None = None
    key: str | None = None
    #: whether the server's certificate must be signed by the given CA
    verify: bool = True


@dataclass(frozen=True, kw_only=True)
class Reply:
    """``status`` 0 means that there was no HTTP answer; ``text`` says why."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def ask(ca: str, question: Question) -> Reply:
    context = ssl.create_default_context(cafile=ca)
    if not question.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if question.certificate:
        context.load_cert_chain(question.certificate, question.key)
    kind = "application/merge-patch+json" if question.method == "PATCH" else "application/json"
    headers = {"Content-Type": kind, "Accept": "application/json"}
    if question.token:
        headers["Authorization"] = f"Bearer {question.token}"
    data = json.dumps(question.body).encode() if question.body is not None else None
    request = urllib.request.Request(question.url, data=data, headers=headers, method=question.method)
    try:
        with urllib.request.urlopen(request, context=context, timeout=20) as answer:
            return Reply(status=answer.status, text=answer.read(MAX_ANSWER).decode(errors="replace"))
    except urllib.error.HTTPError as error:
        return Reply(status=error.code, text=error.read(MAX_ANSWER).decode(errors="replace"))
    except OSError as error:
        return Reply(status=0, text=str(error))


def main() -> None:
    for line in sys.stdin:
        print(json.dumps(asdict(ask(sys.argv[1], Question(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
