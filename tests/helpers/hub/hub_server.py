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
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from tests.helpers.hub.hub_state import DATE, LARGE, READ_TOKEN, Hub, Repo, git_blob
from tests.helpers.hub.hub_transport import HubError
from tests.helpers.hub.hub_xet import XetEndpoints


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


class _Handler(XetEndpoints):
    def _repo(self, kind: str, name: str) -> Repo:
        repo = self.hub.repos.get(f"{kind}/{name}")
        if repo is None or (repo.private and not self.headers.get("Authorization")):
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repo

    def _tree(self, repo: Repo, revision: str) -> dict[str, tuple[bytes, bool]]:
        tree = repo.tree(revision)
        if tree is None:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return tree

    # ------------------------------------------------------------ who, and what there is

    def whoami(self, _: bytes) -> None:
        self.user()
        role = "read" if READ_TOKEN in self.headers.get("Authorization", "") else "write"
        self.answer(
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
            self.answer({"errors": [{"message": '"license" must be one of a list'}]}, 400)
        else:
            self.answer({"errors": [], "warnings": []})

    def create(self, body: bytes) -> None:
        user, wanted = self.user(write=True), json.loads(body)
        owner = wanted.get("organization") or user
        if owner not in ("alice", "guild"):
            raise HubError(
                403, f'You don\'t have the rights to create a model under the namespace "{owner}".'
            )
        kind, name = f"{wanted.get('type') or 'model'}s", f"{owner}/{wanted['name']}"
        if f"{kind}/{name}" in self.hub.repos:
            url = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"
            self.answer({"error": "You already created this model repo", "url": url}, 409)
            return
        repo = self.hub.repos[f"{kind}/{name}"] = Repo(
            private=wanted.get("visibility") == "private" or bool(wanted.get("private"))
        )
        repo.commit("main", {".gitattributes": (b"*.safetensors filter=lfs\n", False)}, "initial commit")
        self.answer({"url": f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"})

    def info(self, _: bytes, kind: str, name: str, revision: str | None) -> None:
        repo = self._repo(kind, name)
        tree = self._tree(repo, revision or "main")
        card = tree.get("README.md", (b"", False))[0].decode()
        licence = re.search(r"^license: (\S+)$", card, re.MULTILINE)
        sha = repo.branches.get(revision or "main", revision)
        siblings = [{"rfilename": path} for path in tree]
        self.answer(
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
        self.answer([_entry(path, content, large) for path, (content, large) in sorted(tree.items())])

    def paths_info(self, body: bytes, kind: str, name: str, revision: str) -> None:
        tree, wanted = self._tree(self._repo(kind, name), revision), parse_qs(body.decode())["paths"]
        self.answer([_entry(path, *tree[path]) for path in wanted if path in tree])

    def refs(self, _: bytes, kind: str, name: str) -> None:
        repo = self._repo(kind, name)
        branches = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": oid}
            for branch, oid in repo.branches.items()
        ]
        self.answer({"branches": branches, "tags": [], "converts": []})

    def resolve(self, _: bytes, kind: str | None, name: str, revision: str, path: str) -> None:
        repo = self._repo(f"{kind or 'models'}", name)
        tree = self._tree(repo, revision)
        if path not in tree:
            raise HubError(404, "Entry not found", "EntryNotFound")
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
        self.send_range(content, headers)

    # ------------------------------------------------------------ sending

    def branch(self, body: bytes, kind: str, name: str, branch: str) -> None:
        self.user(write=True)
        repo = self._repo(kind, name)
        if branch in repo.branches:
            raise HubError(409, "Reference already exists")
        repo.branches[branch] = repo.branches[json.loads(body or b"{}").get("startingPoint", "main")]
        self.answer({})

    def preupload(self, body: bytes, kind: str, name: str, revision: str) -> None:
        self.user()
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
        self.answer({"files": files})

    def batch(self, body: bytes, _kind: str | None, _name: str) -> None:
        self.user(write=True)
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
        self.answer({"transfer": "basic", "objects": objects})

    def store(self, body: bytes, oid: str) -> None:
        if self.corrupt:
            body = bytes([body[0] ^ 1]) + body[1:]
        self.hub.objects[oid] = body
        self.hub.received += len(body)
        self.send(b"", 200, {})

    def verify(self, body: bytes) -> None:
        wanted = json.loads(body)
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise HubError(422, "the size of the object is not the one announced")
        self.answer({})

    def commit(self, body: bytes, kind: str, name: str, revision: str) -> None:
        self.user(write=True)
        repo = self._repo(kind, name)
        lines = [json.loads(line) for line in body.decode().splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        pull, branch = None, revision
        if self.query.get("create_pr"):
            pull = self._new_pull(repo, kind, name, header["summary"])
            branch = f"refs/pr/{pull['num']}"
        if branch not in repo.branches:
            raise HubError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
        tree = dict(self._tree(repo, branch))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                tree[value["path"]] = (base64.b64decode(value["content"]), False)
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    raise HubError(400, f"LFS pointer points to a file that does not exist: {value['path']}")
                tree[value["path"]] = (self.hub.objects[value["oid"]], True)
            elif line["key"] == "deletedFile":
                tree.pop(value["path"], None)
        oid = repo.commit(branch, tree, header["summary"])
        url = f"{self.hub.endpoint}/{name}"
        self.answer(
            {
                "commitUrl": f"{url}/commit/{oid}",
                "commitOid": oid,
                "pullRequestUrl": f"{url}/discussions/{pull['num']}" if pull else None,
            }
        )

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
        self.user()
        self.answer(self._new_pull(self._repo(kind, name), kind, name, json.loads(body)["title"]))

    def discussions(self, _: bytes, kind: str, name: str) -> None:
        found = self._repo(kind, name).discussions
        self.answer({"discussions": found, "count": len(found), "start": 0})

    def discussion(self, _: bytes, kind: str, name: str, num: str) -> None:
        self.answer(self._repo(kind, name).discussions[int(num) - 1])

    def collect(self, body: bytes) -> None:
        self.user(write=True)
        wanted = json.loads(body)
        title = re.sub("[^a-z0-9]+", "-", wanted["title"].lower())
        slug = f"{wanted['namespace']}/{title}-64f9a55bb3115b4f513ec026"
        if slug in self.hub.collections:
            self.answer({"error": "This collection already exists", "slug": slug}, 409)
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
        self.answer(self.hub.collections[slug])

    def collection(self, _: bytes, slug: str) -> None:
        self.answer(self.hub.collections[slug])

    def collect_item(self, body: bytes, slug: str) -> None:
        found, wanted = self.hub.collections[slug], json.loads(body)
        if any(item["id"] == wanted["item"]["id"] for item in found["items"]):
            raise HubError(409, "Item already in collection")
        note = {"text": wanted["note"]} if "note" in wanted else None
        item = {
            "_id": str(len(found["items"])),
            "position": len(found["items"]),
            **wanted["item"],
            "note": note,
        }
        found["items"].append(item)
        self.answer(found)


_R = r"/api/(models|datasets)/([^/]+/[^/]+)"
_Handler.routes = [
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
