"""A run's merged model published with its vectors, loaded by its id elsewhere, and made again:
benchmarks/results/publishing_round_trip.md.

    python benchmarks/publishing_round_trip.py checkpoints/quickstart [--model NAME] [--keep FOLDER]

The Hub is a small server on loopback (tests/helpers/hub/hub_server.py), reached by the real client through
HF_ENDPOINT and Xet. Whoever loads the model and makes it again has an empty cache and not the run: only what
was published. With --keep the published files are written to FOLDER.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

TEXTS = [
    "Return the inverse of a matrix.",
    "Compute the eigenvalues of a symmetric array.",
    "Open a file for reading.",
]
ENCODE = """
import json
from sentence_transformers import SentenceTransformer
model = SentenceTransformer({name!r}, device="cpu")
rows = [model.encode_query({texts!r}).tolist(), model.encode_document({texts!r}).tolist()]
print("EMBEDDINGS" + json.dumps(rows))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--model", default="self-positioning")
    parser.add_argument("--keep", type=Path)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "publishing_round_trip.md"
    )
    options = parser.parse_args()
    from tests.helpers.hub.client import Client
    from tests.helpers.hub.hub_server import running_hub
    from tests.helpers.hub.hub_state import Hub

    model, repo = options.run / "merged" / options.model, f"alice/{options.run.name}"
    lines = [
        "# A merged model published, loaded and made again",
        "",
        "Made by `benchmarks/publishing_round_trip.py`.",
        "",
    ]

    def tell(words: str, said: str, hub: Hub) -> None:
        text = said.strip().replace(hub.endpoint, "https://hub").replace(str(options.run), options.run.name)
        lines.extend([f"`{words}`:", "", "```", text, "```", ""])
        print(words, text, sep="\n", flush=True)

    with running_hub() as hub, tempfile.TemporaryDirectory(prefix="round-trip-") as name:
        maker, stranger = Client(hub, Path(name) / "maker"), Client(hub, Path(name) / "stranger")
        done = maker("push", str(model), repo, "--collection", "--probe-license", "cc0-1.0")
        assert done.returncode == 0, done.stderr
        tell(
            f"selfpos push merged/{options.model} {repo} --collection --probe-license cc0-1.0",
            done.stdout,
            hub,
        )
        sent = ", ".join(sorted(key.partition("/")[2] for key in hub.repos))
        tell("what is on the Hub then", f"{sent}; {hub.received:,} bytes came into large storage", hub)
        here, there = (
            json.loads(client.python(ENCODE.format(name=place, texts=TEXTS)).partition("EMBEDDINGS")[2])
            for client, place in ((maker, str(model)), (stranger, repo))
        )
        equal = "equal to the last bit" if here == there else "DIFFERENT"
        tell(
            f'SentenceTransformer("{repo}") in another process',
            f"embeddings of {len(TEXTS)} texts are {equal}",
            hub,
        )
        again = stranger("reproduce", repo)
        tell(f"selfpos reproduce {repo}", again.stdout or again.stderr, hub)
        if options.keep:
            for path, content in hub.files(repo).items():
                (options.keep / path).parent.mkdir(parents=True, exist_ok=True)
                (options.keep / path).write_bytes(content)
        maker.close()
        stranger.close()
    options.out.write_text("\n".join(lines), encoding="utf-8")
    assert here == there and again.returncode == 0
    print(options.out)


if __name__ == "__main__":
    main()
