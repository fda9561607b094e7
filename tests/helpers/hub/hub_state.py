"""What the small Hub keeps, in memory: repositories with their commits, trees and blobs, and the faults it is
told to have.
"""

from __future__ import annotations

import hashlib
import re
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.helpers.hub.xet_storage import XetStorage

TOKEN = "hf_" + "Loopback" * 5  # of user 'alice', who may write
READ_TOKEN = "hf_" + "Readonly" * 5
DATE = "2026-11-23T09:00:00.000Z"
LARGE = 10_000  # bytes from which a file goes to large storage, as .safetensors and .png always do


@dataclass
class Fault:
    """What happens to requests whose `METHOD path` matches: a status, or 'cut',  'lost' (done, but not
    answered), 'page' (a web page instead of an answer), 'corrupt', 'slow' or 'stall'; `times` of them,
    after `skip`. `body` goes into the answer.
    """

    pattern: str
    what: int | str
    times: int = 10**9
    skip: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    message: str = ""
    code: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.3


@dataclass
class Repo:
    """Branches point to commits; a commit is a mapping of path → blob, `lfs` telling which blobs are in large
    storage.
    """

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, tuple[bytes, bool]]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    discussions: list[dict[str, Any]] = field(default_factory=list)

    def tree(self, revision: str) -> dict[str, tuple[bytes, bool]] | None:
        return self.commits.get(self.branches.get(revision, revision))

    def commit(self, branch: str, tree: dict[str, tuple[bytes, bool]], message: str) -> str:
        files = "".join(
            f"{path}{hashlib.sha1(content).hexdigest()}" for path, (content, _) in sorted(tree.items())
        )
        oid = hashlib.sha1(f"{branch}{message}{len(self.commits)}{files}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = tree, oid
        self.messages.append(message)
        return oid


class Hub:
    """The state of the server, and the handle by which tests look at it and break it."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.lock = threading.Lock()
        self.xet = XetStorage()
        self.reset()

    def reset(self) -> None:
        """Forget everything but the chunks in Xet storage, which clients remember having sent."""
        self.repos: dict[str, Repo] = {}  # 'models/alice/name' → repository
        self.objects: dict[str, bytes] = {}  # large storage by the name that the client gave: the SHA-256
        self.collections: dict[str, dict[str, Any]] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []  # 'METHOD path', in order
        self.received = 0  # bytes that came into large storage since the last healing
        self.authorizations: list[str] = []

    def fail(self, pattern: str, what: int | str, **more: Any) -> None:
        """Let requests matching `pattern` fail; see Fault."""
        self.faults.append(Fault(pattern, what, **more))

    def heal(self) -> None:
        """End all faults and forget the requests so far."""
        self.faults.clear()
        self.requests.clear()
        self.received = 0

    def model(self, name: str) -> Repo:
        return self.repos[f"models/{name}"]

    def files(self, name: str, revision: str = "main") -> dict[str, bytes]:
        """Path → content of the model repository `name`, without .gitattributes."""
        tree = self.model(name).tree(revision) or {}
        return {path: content for path, (content, _) in tree.items() if path != ".gitattributes"}

    def fault_for(self, request: str) -> Fault | None:
        with self.lock:
            self.requests.append(request)
            for fault in self.faults:
                if re.search(fault.pattern, request) and fault.times > 0:
                    if fault.skip:
                        fault.skip -= 1
                        return None
                    fault.times -= 1
                    return fault
        return None


def git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
