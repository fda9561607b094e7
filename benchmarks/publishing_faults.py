"""Every fault that publishing may meet, played through with the real client over real HTTP: benchmarks/results/publishing_faults.md.

    python benchmarks/publishing_faults.py

The Hub is a small server on loopback (tests/publishing/hub_server.py) that is told to fail. The command line runs in a process of its own, with
Xet, as it is installed by default. The waits between the client's tries are shortened, so how long it tries is not told here. The large upload is
of random weights, 160 MB; it takes a minute and 2 GB of disk and memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

LARGE = {"pieces": 4, "weights": 10_000_000}  # of each piece, float32


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--small", action="store_true", help="leave the large upload out")
    options = parser.parse_args()
    from tests.conftest import make_tiny_model
    from tests.publishing.hub_server import running_hub

    with running_hub() as hub, tempfile.TemporaryDirectory(prefix="publishing-faults-") as name:
        work = Path(name)
        base = make_tiny_model(work / "base")
        found: dict[str, Any] = {"push": pushes(hub, base, work), "pull": pulls(hub, base, work)}
        if not options.small:
            found["large"] = [
                large(hub, base, work, xet=xet, end=end) for xet in (True, False) for end in ("killed", "cut")
            ]
    from importlib.metadata import version

    found["versions"] = {name: version(name) for name in ("huggingface_hub", "hf-xet")}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "publishing_faults.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (options.out / "publishing_faults.md").write_text(report(found), encoding="utf-8")
    print(options.out / "publishing_faults.md")


def ready(base: Path, folder: Path, seed: int) -> Path:
    """A model to send, of weights of its own: Xet remembers what it has sent."""
    from tests.conftest import make_specialist
    from tests.publishing.conftest import write_manifest

    model = make_specialist(base, folder, seed=seed)
    return write_manifest(
        model, kind="merged", name="merged", licence="apache-2.0", merge={"method": "ties", "sources": []}
    )


def pushes(hub: Any, base: Path, work: Path) -> list[dict[str, Any]]:
    from tests.publishing.client import Client
    from tests.publishing.faults import CASES, other_model, play

    clients = {lfs: Client(hub, work / f"home-{lfs}", xet=not lfs) for lfs in (False, True)}
    rows = []
    for number, (name, case) in enumerate(CASES.items(), start=1):
        hub.reset()
        model = ready(base, work / f"push-{number}" / "merged", number)
        outcome = play(
            case, hub, clients[case.lfs], model, other_model(model, work / f"push-{number}" / "other")
        )
        rows.append(
            {
                "fault": name,
                **asdict(outcome),
                "sentence": neutral(outcome.sentence, hub),
                "then": neutral(outcome.then, hub),
            }
        )
        print(name, "→", rows[-1]["sentence"])
    for client in clients.values():
        client.close()
    return rows


def pulls(hub: Any, base: Path, work: Path) -> list[dict[str, Any]]:
    from tests.publishing.client import Client
    from tests.publishing.faults import PULLS

    rows = []
    client = Client(hub, work / "home-pull")
    for number, (name, (asked, pattern, what, _, _)) in enumerate(PULLS.items(), start=1):
        hub.reset()
        model = ready(base, work / f"pull-{number}" / "merged", 1000 + number)
        repo = f"alice/pull-{number}"
        assert client("push", str(model), repo).returncode == 0
        if what:
            hub.fail(pattern, what)
        done = client("reproduce", asked.format(repo=repo))
        hub.heal()
        again = client("reproduce", repo)
        fetched = "fetches it" if "was not made by a merge" in again.stderr else again.sentence
        rows.append(
            {
                "fault": name,
                "status": done.returncode,
                "sentence": neutral(done.sentence, hub),
                "then": neutral(fetched, hub),
            }
        )
        print(name, "→", rows[-1]["sentence"])
    client.close()
    return rows


def large(hub: Any, base: Path, work: Path, *, xet: bool, end: str) -> dict[str, Any]:
    """A push of many megabytes that is killed, or cut off for good, in the middle; how many bytes go out again with the second start."""
    from safetensors.numpy import save_file

    from tests.publishing.client import environment
    from tests.publishing.faults import REPO

    hub.reset()
    hub.heal()
    folder = work / f"large-{xet}-{end}"
    model = ready(base, folder / "merged", 1)
    rng = np.random.default_rng(len(end) + xet)
    for piece in range(LARGE["pieces"]):
        save_file(
            {f"w{piece}": rng.standard_normal(LARGE["weights"], dtype=np.float32)},
            model / f"piece-{piece}.safetensors",
        )
    total = sum(file.stat().st_size for file in model.rglob("*.safetensors"))
    env = environment(hub, folder / "home") | ({} if xet else {"HF_HUB_DISABLE_XET": "1"})
    words = [sys.executable, "-m", "selfpos", "push", str(model), REPO]
    if end == "cut":
        hub.fail(r"POST /cas/v1/xorbs/" if xet else r"PUT /storage/", "cut", skip=2)
    first = subprocess.Popen(
        words, env=env | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    if end == "killed":
        while hub.received < total / 2 and first.poll() is None:
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
    _, said = first.communicate()
    before, files = hub.received, len(hub.files(REPO))
    hub.heal()
    second = subprocess.run(
        words, env=env | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert second.returncode == 0, second.stderr
    arrived = hub.files(REPO)
    equal = all(
        arrived[file.relative_to(model).as_posix()] == file.read_bytes()
        for file in model.rglob("*.safetensors")
    )
    sentence = next((line for line in said.splitlines() if line.startswith("selfpos: ")), "(killed)")
    row = {
        "transport": "Xet" if xet else "LFS", "end": end, "bytes": total, "sent": before, "there": files, "again": hub.received, "equal": equal,
        "sentence": neutral(sentence, hub),
    }  # fmt: skip
    print(row)
    shutil.rmtree(folder)
    return row


def neutral(text: str, hub: Any) -> str:
    """`text` without what differs from run to run."""
    return re.sub(
        r"alice/pull-\d+", "alice/merged", text.removeprefix("selfpos: ").replace(hub.endpoint, "https://hub")
    )


def report(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "# Faults of publishing",
        "",
        f"Made by `benchmarks/publishing_faults.py` with the real client ({versions}) over HTTP, against a small Hub on loopback that is told to fail.",
        "Large files go through Xet, as by default, but for the lines that begin with LFS. The model has 13 files, two of them large. Where no answer",
        "comes, the client waits 120 s; here it was told to wait 0.2 s. Waits between its tries are shortened, too.",
        "",
        "## `selfpos push`",
        "",
        '"Sent": uploads of large files, or packs of them, in the first and in the second start, the tries of the client counted.',
        "",
        "| fault | what the user sees | exit | on the Hub then | here then | second start | sent |",
        "|:--|:--|--:|:--|:--|:--|--:|",
    ]
    for row in found["push"]:
        sent = " + ".join(map(str, row["sent"]))
        cells = [
            row["fault"],
            row["sentence"],
            str(row["status"]),
            row["there"],
            row["here"],
            row["then"],
            sent,
        ]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", "## `selfpos reproduce NAME`, the model on the Hub", ""]
    lines += ["| fault | what the user sees | exit | second start |", "|:--|:--|--:|:--|"]
    for row in found["pull"]:
        cells = [row["fault"], row["sentence"], str(row["status"]), row["then"]]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if "large" in found:
        lines += [
            "",
            "## A large upload, stopped in the middle",
            "",
            "| through | stopped by | bytes | sent before | files on the Hub then |",
        ]
        lines[-1] += " sent by the second start | arrived whole |"
        lines.append("|:--|:--|--:|--:|--:|--:|:--|")
        for row in found["large"]:
            stop = {"killed": "SIGKILL at half", "cut": "a connection that is cut from the third piece on"}[
                row["end"]
            ]
            cells = [
                row["transport"],
                stop,
                *(f"{row[key]:,}" for key in ("bytes", "sent", "there", "again")),
                "yes" if row["equal"] else "NO",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
