"""A small Hub on loopback: the endpoints that the real client uses to create, upload, look and download, with
faults on request.

What it keeps is in hub_state.py. Large files come and go through Xet storage, as with the Hub, or through LFS
for clients that have no Xet. Hashes are those of what was really received, so that a corrupted upload shows.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

from tests.publishing.hub_state import DATE, LARGE, READ_TOKEN, TOKEN, Hub, Repo, git_blob
from tests.publishing.xet_storage import DamagedError


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that listens on a free port of loopback while the block runs."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _entry(path: str, content: bytes, large: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_blob(content)}
    if large:
        sha = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
    return entry


class _HubError(Exception):
    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        self.status, self.message, self.code = status, message, code


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[Hub]
    protocol_version = "HTTP/1.1"

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
            self._send(
                b"<!doctype html><title>Sign in to this network</title>", 200, {"Content-Type": "text/html"}
            )
            return
        if fault is not None and fault.what == "slow":
            time.sleep(fault.seconds)
        self.corrupt = fault is not None and fault.what == "corrupt"
        self.lost = fault is not None and fault.what == "lost"
        try:
            if fault is not None and isinstance(fault.what, int):
                raise _HubError(fault.what, fault.message or "the server was told to fail", fault.code)
            for method, pattern, action in _ROUTES:
                found = re.fullmatch(pattern, url.path)
                if method == self.command and found:
                    action(self, body, *(unquote(part) if part else part for part in found.groups()))
                    return
            raise _HubError(404, f"no such endpoint {self.command} {url.path}")
        except _HubError as error:
            headers = dict(fault.headers) if fault else {}
            headers["X-Error-Message"] = error.message
            if error.code:
                headers["X-Error-Code"] = error.code
            self._json({"error": error.message, **(fault.body if fault else {})}, error.status, headers)

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

    def _send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
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

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(
            json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})}
        )

    def _user(self, write: bool = False) -> str:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in (TOKEN, READ_TOKEN):
            raise _HubError(
                401,
                "Invalid credentials in Authorization header" if given else "Invalid username or password.",
            )
        if write and given == READ_TOKEN:
            raise _HubError(403, "Forbidden: you must use a write token to upload to a repository.")
        return "alice"

    def _repo(self, kind: str, name: str) -> Repo:
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None or (repo.private and not self.headers.get("Authorization")):
            raise _HubError(404, "Repository not found", "RepoNotFound")
        return repo

    def _tree(self, repo: Repo, revision: str) -> dict[str, tuple[bytes, bool]]:
        tree = repo.tree(revision)
        if tree is None:
            raise _HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return tree

    # ------------------------------------------------------------ who, and what there is

    def whoami(self, _: bytes) -> None:
        self._user()
        role = "read" if READ_TOKEN in self.headers.get("Authorization", "") else "write"
        self._json(
            {
                "type": "user",
                "name": "alice",
                "orgs": [{"name": "guild"}],
                "auth": {"accessToken": {"role": role}},
            }
        )

    def validate(self, body: bytes) -> None:
        content = json.loads(body)["content"]
        if "license: not-a-licence" in content:
            self._json({"errors": [{"message": '"license" must be one of a list'}]}, 400)
        else:
            self._json({"errors": [], "warnings": []})

    def create(self, body: bytes) -> None:
        user, wanted = self._user(write=True), json.loads(body)
        owner = wanted.get("organization") or user
        if owner not in ("alice", "guild"):
            raise _HubError(
                403, f'You don\'t have the rights to create a model under the namespace "{owner}".'
            )
        kind, name = f"{wanted.get('type') or 'model'}s", f"{owner}/{wanted['name']}"
        if f"{kind}/{name}" in self.hub.repos:
            url = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"
            self._json({"error": "You already created this model repo", "url": url}, 409)
            return
        repo = self.hub.repos[f"{kind}/{name}"] = Repo(
            private=wanted.get("visibility") == "private" or bool(wanted.get("private"))
        )
        repo.commit("main", {".gitattributes": (b"*.safetensors filter=lfs\n", False)}, "initial commit")
        self._json({"url": f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"})

    def info(self, _: bytes, kind: str, name: str, revision: str | None) -> None:
        repo = self._repo(kind, name)
        tree = self._tree(repo, revision or "main")
        card = tree.get("README.md", (b"", False))[0].decode()
        licence = re.search(r"^license: (\S+)$", card, re.MULTILINE)
        sha = repo.branches.get(revision or "main", revision)
        siblings = [{"rfilename": path} for path in tree]
        self._json(
            {
                "_id": "1",
                "id": name,
                "modelId": name,
                "sha": sha,
                "private": repo.private,
                "siblings": siblings,
                "tags": [],
                "cardData": {"license": licence[1]} if licence else {},
            }
        )

    def tree(self, _: bytes, kind: str, name: str, revision: str) -> None:
        tree = self._tree(self._repo(kind, name), revision)
        self._json([_entry(path, content, large) for path, (content, large) in sorted(tree.items())])

    def paths_info(self, body: bytes, kind: str, name: str, revision: str) -> None:
        tree, wanted = self._tree(self._repo(kind, name), revision), parse_qs(body.decode())["paths"]
        self._json([_entry(path, *tree[path]) for path in wanted if path in tree])

    def refs(self, _: bytes, kind: str, name: str) -> None:
        repo = self._repo(kind, name)
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": oid}
            for branch, oid in repo.branches.items()
        ]
        self._json({"branches": branches, "tags": [], "converts": []})

    def resolve(self, _: bytes, kind: str | None, name: str, revision: str, path: str) -> None:
        repo = self._repo(f"{kind or 'models'}", name)
        tree = self._tree(repo, revision)
        if path not in tree:
            raise _HubError(404, "Entry not found", "EntryNotFound")
        content, large = tree[path]
        etag = hashlib.sha256(content).hexdigest() if large else git_blob(content)
        headers = {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": repo.branches.get(revision, revision),
            "Accept-Ranges": "bytes",
        }
        if large and (stored := self.hub.xet.by_sha256(etag)):
            route = (
                f"{self.hub.endpoint}/api/{kind or 'models'}/{name}/xet-read-token/{headers['X-Repo-Commit']}"
            )
            headers |= {"X-Xet-Hash": stored.name, "X-Xet-Refresh-Route": route}
        self._send_range(content, headers)

    def _send_range(self, content: bytes, headers: dict[str, str]) -> None:
        """The whole, or the bytes that the request asks for."""
        if self.headers.get("Range"):
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or len(content)) + 1, len(content))
            self._send(
                content[start:stop],
                206,
                {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"},
            )
        else:
            self._send(content, 200, headers)

    # ------------------------------------------------------------ sending

    def branch(self, body: bytes, kind: str, name: str, branch: str) -> None:
        self._user(write=True)
        repo = self._repo(kind, name)
        if branch in repo.branches:
            raise _HubError(409, "Reference already exists")
        repo.branches[branch] = repo.branches[json.loads(body or b"{}").get("startingPoint", "main")]
        self._json({})

    def preupload(self, body: bytes, kind: str, name: str, revision: str) -> None:
        self._user()
        tree = self._tree(self._repo(kind, name), revision)
        files = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            large = file["size"] > LARGE or path.endswith((".safetensors", ".png", ".parquet"))
            entry: dict[str, Any] = {
                "path": path,
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": False,
            }
            if path in tree:
                held = _entry(path, *tree[path])
                entry["oid"] = held["lfs"]["oid"] if "lfs" in held else held["oid"]
            files.append(entry)
        self._json({"files": files})

    def batch(self, body: bytes, _kind: str | None, _name: str) -> None:
        self._user(write=True)
        objects = []
        for wanted in json.loads(body)["objects"]:
            answer: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            held = self.hub.objects.get(wanted["oid"])
            if held is None or hashlib.sha256(held).hexdigest() != wanted["oid"]:
                href = f"{self.hub.endpoint}/storage/{wanted['oid']}"
                answer["actions"] = {
                    "upload": {"href": href},
                    "verify": {"href": f"{self.hub.endpoint}/verify"},
                }
            objects.append(answer)
        self._json({"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        if self.corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.hub.objects[oid] = body
        self.hub.received += len(body)
        self._send(b"", 200, {})

    def verify(self, body: bytes) -> None:
        wanted = json.loads(body)
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise _HubError(422, "the size of the object is not the one announced")
        self._json({})

    def commit(self, body: bytes, kind: str, name: str, revision: str) -> None:
        self._user(write=True)
        repo = self._repo(kind, name)
        lines = [json.loads(line) for line in body.decode().splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        pull, branch = None, revision
        if self.query.get("create_pr"):
            pull = self._new_pull(repo, kind, name, header["summary"])
            branch = f"refs/pr/{pull['num']}"
        if branch not in repo.branches:
            raise _HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        tree = dict(self._tree(repo, branch))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = (base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise _HubError(400, f"LFS pointer points to a file that does not exist: {value['path']}")
                tree[value["path"]] = (self.hub.objects[value["oid"]], True)
            elif line["key"] == "deletedFile":
                tree.pop(value["path"], None)
        oid = repo.commit(branch, tree, header["summary"])
        url = f"{self.hub.endpoint}/{name}"
        self._json(
            {
                "commitUrl": f"{url}/commit/{oid}",
                "commitOid": oid,
                "pullRequestUrl": f"{url}/discussions/{pull['num']}" if pull else None,
            }
        )

    # ------------------------------------------------------------ Xet storage

    def xet_token(self, _: bytes, _kind: str, _name: str, what: str, _revision: str) -> None:
        self._user(write=what == "write")
        expiry = int(time.time()) + 3600
        headers = {
            "X-Xet-Cas-Url": f"{self.hub.endpoint}/cas",
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": str(expiry),
        }
        self._json({"casUrl": headers["X-Xet-Cas-Url"], "exp": expiry, "accessToken": "xet"}, headers=headers)

    def xorb(self, body: bytes, name: str) -> None:
        if self.corrupt:
            body = body[:20] + bytes([body[20] ^ 1]) + body[21:]
        self.hub.xet.xorbs[name] = body
        self.hub.received += len(body)
        self._json({"was_inserted": True})

    def shard(self, body: bytes) -> None:
        try:
            self.hub.objects |= {file.sha256: file.content for file in self.hub.xet.add_shard(body)}
        except DamagedError as error:
            raise _HubError(400, str(error)) from None
        self._json({"result": 1})

    def reconstruction(self, _: bytes, name: str) -> None:
        file = self.hub.xet.files.get(name)
        if file is None:
            raise _HubError(404, "no such file")
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
        self._json({"offset_into_first_range": 0, "terms": terms, "fetch_info": fetch})

    def chunks(self, _: bytes, name: str) -> None:
        content = self.hub.xet.xorbs[name]
        # The scheme of the first chunk: not every changed byte of its content would be noticed by the client
        if self.corrupt:
            content = content[:4] + bytes([content[4] ^ 8]) + content[5:]
        self._send_range(content, {})

    # ------------------------------------------------------------ pull requests and collections

    def _new_pull(self, repo: Repo, kind: str, name: str, title: str) -> dict[str, Any]:
        num = len(repo.discussions) + 1
        repo.branches[f"refs/pr/{num}"] = repo.branches["main"]
        pull = {
            "num": num,
            "title": title,
            "author": {"name": "alice"},
            "createdAt": DATE,
            "status": "draft",
            "isPullRequest": True,
            "repo": {"name": name, "type": kind.removesuffix("s")},
            "changes": {"base": "refs/heads/main"},
            "filesWithConflicts": [],
            "events": [],
        }
        repo.discussions.append(pull)
        return pull

    def discuss(self, body: bytes, kind: str, name: str) -> None:
        self._user()
        self._json(self._new_pull(self._repo(kind, name), kind, name, json.loads(body)["title"]))

    def discussions(self, _: bytes, kind: str, name: str) -> None:
        found = self._repo(kind, name).discussions
        self._json({"discussions": found, "count": len(found), "start": 0})

    def discussion(self, _: bytes, kind: str, name: str, num: str) -> None:
        self._json(self._repo(kind, name).discussions[int(num) - 1])

    def collect(self, body: bytes) -> None:
        self._user(write=True)
        wanted = json.loads(body)
        title = re.sub("[^a-z0-9]+", "-", wanted["title"].lower())
        slug = f"{wanted['namespace']}/{title}-64f9a55bb3115b4f513ec026"
        if slug in self.hub.collections:
            self._json({"error": "This collection already exists", "slug": slug}, 409)
            return
        self.hub.collections[slug] = {
            "slug": slug,
            "title": wanted["title"],
            "owner": {"name": wanted["namespace"]},
            "items": [],
            "lastUpdated": DATE,
            "position": 0,
            "private": wanted["private"],
            "theme": "green",
            "upvotes": 0,
            "description": wanted.get("description"),
        }
        self._json(self.hub.collections[slug])

    def collection(self, _: bytes, slug: str) -> None:
        self._json(self.hub.collections[slug])

    def collect_item(self, body: bytes, slug: str) -> None:
        found, wanted = self.hub.collections[slug], json.loads(body)
        if any(item["id"] == wanted["item"]["id"] for item in found["items"]):
            raise _HubError(409, "Item already in collection")
        note = {"text": wanted["note"]} if "note" in wanted else None
        item = {
            "_id": str(len(found["items"])),
            "position": len(found["items"]),
            **wanted["item"],
            "note": note,
        }
        found["items"].append(item)
        self._json(found)


_R = r"/api/(models|datasets)/([^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("POST", "/api/repos/create", _Handler.create),
    ("GET", _R + "(?:/revision/(.+))?", _Handler.info),
    ("GET", _R + "/tree/([^/]+)", _Handler.tree),
    ("POST", _R + "/paths-info/([^/]+)", _Handler.paths_info),
    ("GET", _R + "/refs", _Handler.refs),
    ("POST", _R + "/branch/(.+)", _Handler.branch),
    ("POST", _R + "/preupload/([^/]+)", _Handler.preupload),
    ("POST", r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/storage/([0-9a-f]+)", _Handler.store),
    ("POST", "/verify", _Handler.verify),
    ("POST", _R + "/commit/([^/]+)", _Handler.commit),
    ("GET", _R + "/xet-(read|write)-token/(.+)", _Handler.xet_token),
    ("POST", "/cas/v1/xorbs/default/([0-9a-f]+)", _Handler.xorb),
    ("POST", "/cas/v1/shards", _Handler.shard),
    ("GET", "/cas/v1/reconstructions/([0-9a-f]+)", _Handler.reconstruction),
    ("GET", "/xorbs/([0-9a-f]+)", _Handler.chunks),
    ("GET", _R + "/discussions", _Handler.discussions),
    ("POST", _R + "/discussions", _Handler.discuss),
    ("GET", _R + r"/discussions/(\d+)", _Handler.discussion),
    ("POST", "/api/collections", _Handler.collect),
    ("GET", "/api/collections/([^/]+/[^/]+)", _Handler.collection),
    ("POST", "/api/collections/([^/]+/[^/]+)/items", _Handler.collect_item),
    ("GET", r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
    ("HEAD", r"/(?:(datasets)/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler.resolve),
]
