"""Every fault that publishing may meet, played through with the real client over real HTTP:
benchmarks/results/publishing_faults.md.

    python benchmarks/publishing_faults.py

The Hub is a small server on loopback (tests/helpers/hub/hub_server.py) that is told to fail. The command line
runs in a process of its own, with Xet, as it is installed by default. The waits between the client's tries
are shortened, so how long it tries is not told here. The large upload is of random weights, 160 MB; it takes
a minute and 2 GB of disk and memory.
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

from selfpos.console import markdown_table

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
    from tests.helpers.hub.hub_server import running_hub
    from tests.helpers.models import make_tiny_model

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
    from tests.helpers.hub.scored_run import write_manifest
    from tests.helpers.models import make_specialist

    model = make_specialist(base, folder, seed=seed)
    return write_manifest(
        model, kind="merged", name="merged", licence="apache-2.0", merge={"method": "ties", "sources": []}
    )


def pushes(hub: Any, base: Path, work: Path) -> list[dict[str, Any]]:
    from tests.helpers.hub.client import Client
    from tests.helpers.hub.faults import CASES, other_model, play

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
    from tests.helpers.hub.client import Client
    from tests.helpers.hub.faults import PULLS

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
    """A push of many megabytes that is killed or cut off in the middle, and the bytes that the second start
    sends.
    """
    from safetensors.numpy import save_file

    from tests.helpers.hub.client import environment
    from tests.helpers.hub.faults import REPO

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
        "transport": "Xet" if xet else "LFS",
        "end": end,
        "bytes": total,
        "sent": before,
        "there": files,
        "again": hub.received,
        "equal": equal,
        "sentence": neutral(sentence, hub),
    }
    print(row)
    shutil.rmtree(folder)
    return row


def neutral(text: str, hub: Any) -> str:
    """`text` without what differs from run to run."""
    return re.sub(
        r"alice/pull-\d+", "alice/merged", text.removeprefix("selfpos: ").replace(hub.endpoint, "https://hub")
    )


def report(found: dict[str, Any]) -> str:
    """The results as Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    header = ["fault", "what the user sees", "exit", "on the Hub then", "here then", "second start", "sent"]
    keys = ["fault", "sentence", "status", "there", "here", "then", "sent"]
    parts = [
        "# Faults of publishing",
        f"Made by `benchmarks/publishing_faults.py` with the real client ({versions}) over HTTP, against a "
        "small Hub on "
        "loopback that is told to fail. Large files go through Xet, as by default, except in lines that "
        "begin with LFS. "
        "The model has 13 files, two of them large. Without an answer the client waits 120 s; here it waits "
        "0.2 s. Waits "
        "between its tries are shortened, too.",
        "## `selfpos push`",
        '"Sent": uploads of large files, or packs of them, by the first and the second call, with all tries.',
        table(header, [row | {"sent": " + ".join(map(str, row["sent"]))} for row in found["push"]], keys),
        "## `selfpos reproduce NAME`, the model on the Hub",
        table(
            ["fault", "what the user sees", "exit", "second start"],
            found["pull"],
            ["fault", "sentence", "status", "then"],
        ),
    ]
    if "large" in found:
        stops = {"killed": "SIGKILL at half", "cut": "a connection that is cut from the third file on"}
        rows = [
            row | {"end": stops[row["end"]], "equal": "yes" if row["equal"] else "NO"}
            for row in found["large"]
        ]
        header = ["through", "stopped by", "bytes", "sent before", "files on the Hub then"]
        header += ["sent by the second start", "arrived whole"]
        keys = ["transport", "end", "bytes", "sent", "there", "again", "equal"]
        parts += ["## A large upload, stopped in the middle", table(header, rows, keys)]
    return "\n\n".join(parts) + "\n"


def table(header: list[str], rows: list[dict[str, Any]], keys: list[str]) -> str:
    """The `keys` of `rows` as a Markdown table; numbers with thousands separators."""
    cells = []
    for row in rows:
        values = [row[key] for key in keys]
        cells.append(
            [f"{value:,}" if isinstance(value, int) else value.replace("|", "\\|") for value in values]
        )
    return markdown_table(header, cells)


if __name__ == "__main__":
    main()
