"""How the small Hub reads requests and answers them, with the faults that it was told to have."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from tests.helpers.hub.hub_state import READ_TOKEN, TOKEN, Hub


class HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


class HubTransport(BaseHTTPRequestHandler):
    """Reads requests, commits the fault that the hub has for each, calls the endpoint's action, answers."""

    hub: ClassVar[Hub]
    #: method, pattern of the path, and what answers it with the pattern's groups
    routes: ClassVar[list[tuple[str, str, Callable[..., None]]]]
    protocol_version = "HTTP/1.1"
    # Head and body are two writes: Nagle's algorithm would hold the second back for 40 ms, each time.
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Be quiet."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        self.corrupt = False
        fault = self.hub.fault_for(f"{self.command} {unquote(url.path)}")
        self.hub.authorizations.append(self.headers.get("Authorization", ""))
        if fault is not None and fault.what == "stall":
            time.sleep(fault.seconds)
            self.close_connection = True
            return
        if fault is not None and fault.what == "cut":
            self.rfile.read(min(512, int(self.headers.get("Content-Length") or 0)))
            self.close_connection = True
            self.connection.close()
            return
        body = self._body()
        if fault is not None and fault.what == "page":
            self.lost = False
            self.send(
                b"<!doctype html><title>Sign in to this network</title>", 200, {"Content-Type": "text/html"}
            )
            return
        if fault is not None and fault.what == "slow":
            time.sleep(fault.seconds)
        self.corrupt = fault is not None and fault.what == "corrupt"
        self.lost = fault is not None and fault.what == "lost"
        try:
            if fault is not None and isinstance(fault.what, int):
                raise HubError(fault.what, fault.message or "the server was told to fail", fault.code)
            for method, pattern, action in self.routes:
                match = re.fullmatch(pattern, url.path)
                if method == self.command and match:
                    action(self, body, *(unquote(part) if part else part for part in match.groups()))
                    return
            raise HubError(404, f"no such endpoint {self.command} {url.path}")
        except HubError as error:
            headers = dict(fault.headers) if fault else {}
            headers["X-Error-Message"] = error.message
            if error.code:
                headers["X-Error-Code"] = error.code
            self.answer({"error": error.message, **(fault.body if fault else {})}, error.status, headers)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        if self.lost:
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def answer(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send_range(self, content: bytes, headers: dict[str, str]) -> None:
        """The whole, or the bytes that the request asks for."""
        if self.headers.get("Range"):
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(content)) + 1, len(content))
            self.send(
                content[start:stop],
                206,
                {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"},
            )
        else:
            self.send(content, 200, headers)

    def user(self, write: bool = False) -> str:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in (TOKEN, READ_TOKEN):
            raise HubError(
                401,
                "Invalid credentials in Authorization header" if given else "Invalid username or password.",
            )
        if write and given == READ_TOKEN:
            raise HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        return "alice"
