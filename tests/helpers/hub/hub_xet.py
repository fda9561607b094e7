"""The endpoints of Xet storage, through which large files come and go."""

from __future__ import annotations

import time
from typing import Any

from tests.helpers.hub.hub_transport import HubError, HubTransport
from tests.helpers.hub.xet_storage import DamagedError


class XetEndpoints(HubTransport):
    """Tokens, uploads of chunks and of the lists of them, and how files are put together."""

    def xet_token(self, _: bytes, _kind: str, _name: str, what: str, _revision: str) -> None:
        self.user(write=what == "write")
        expiry = int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": f"{self.hub.endpoint}/cas",
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": str(expiry),
        }
        self.answer(
            {"casUrl": headers["X-Xet-Cas-Url"], "exp": expiry, "accessToken": "xet"}, headers=headers
        )

    def xorb(self, body: bytes, name: str) -> None:
        if self.corrupt:
            body = body[:20] + bytes([body[20] ^ 1]) + body[21:]
        self.hub.xet.xorbs[name] = body
        self.hub.received += len(body)
        self.answer({"was_inserted": True})

    def shard(self, body: bytes) -> None:
        try:
            self.hub.objects |= {file.sha256: file.content for file in self.hub.xet.add_shard(body)}
        except DamagedError as error:
            raise HubError(400, str(error)) from None
        self.answer({"result": 1})

    def reconstruction(self, _: bytes, name: str) -> None:
        file = self.hub.xet.files.get(name)
        if file is None:
            raise HubError(404, "no such file")
        fetch: dict[str, list[dict[str, Any]]] = {}
        for term in file.terms:
            first, last = self.hub.xet.span(term)
            place = {
                "url": f"{self.hub.endpoint}/xorbs/{term.name}",
                "url_range": {"start": first, "end": last},
            }
            fetch.setdefault(term.name, []).append({"range": {"start": term.start, "end": term.end}, **place})
        terms = [
            {
                "hash": term.name,
                "unpacked_length": term.length,
                "range": {"start": term.start, "end": term.end},
            }
            for term in file.terms
        ]
        self.answer({"offset_into_first_range": 0, "terms": terms, "fetch_info": fetch})

    def chunks(self, _: bytes, name: str) -> None:
        content = self.hub.xet.xorbs[name]
        # The scheme of the first chunk: not every changed byte of its content would be noticed by the client
        if self.corrupt:
            content = content[:4] + bytes([content[4] ^ 8]) + content[5:]
        self.send_range(content, {})
