"""What gathering Fisher and RegMean statistics costs: time and memory of whole merges of all-MiniLM-L6-v2
that look at a probe set.

    python benchmarks/merging_statistics.py [--records 128]

Two specialists (the packaged model, each moved by a random step) and two probe tasks of real texts (the
docstrings of the embedded corpus). Each line is a process of its own on one core: embedding the probe's texts
once, the base of comparison; merging without data; merging by fisher and by regmean. Results go to
benchmarks/results/merging_statistics.json and .md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from merging import facts, measure, median

RESULTS = Path(__file__).parent / "results"
SEEN = ("embedding the probe once", "merge average", "merge fisher", "merge regmean")
EMBED = """
import json, sys
from sentence_transformers import SentenceTransformer
SentenceTransformer(sys.argv[1], device="cpu").encode(json.load(open(sys.argv[2])), batch_size=32)
"""


def make_inputs(folder: Path, records: int) -> tuple[Path, list[Path], Path, int]:
    """Base, specialists, probe set, and its number of texts; the texts also as `folder`/texts.json."""
    from selfpos.data.probe import write_probe
    from selfpos.data.sources import load_task
    from selfpos.recipe import TaskSource
    from selfpos.storage.locate import locate_model
    from selfpos.tasks import get_task
    from tests.helpers.models import make_specialist

    base = locate_model("all-MiniLM-L6-v2")
    names = ["first", "second"]
    sources = [make_specialist(base, folder / name, seed=seed, size=0.001) for seed, name in enumerate(names)]
    found = load_task(TaskSource(type="retrieval", data="corpus"), seed=0).dataset.shuffle(seed=0)
    parts = {
        name: found.select(range(index * records, (index + 1) * records)) for index, name in enumerate(names)
    }
    write_probe(folder / "probe", parts, {name: get_task("retrieval") for name in names})
    texts = [text for part in parts.values() for column in ("anchor", "positive") for text in part[column]]
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    return base, sources, folder / "probe", len(texts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=128, help="probe records of each of the two tasks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.cores, options.rivals = 1, None
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        base, sources, probe, texts = make_inputs(folder, options.records)
        for what in SEEN:
            runs = []
            for number in range(options.repeats):
                words = [sys.executable, "-c", EMBED, str(base), str(folder / "texts.json")]
                if what.startswith("merge"):
                    words = [
                        sys.executable,
                        "-m",
                        "selfpos",
                        "merge",
                        "--base",
                        str(base),
                        "--vectors",
                        *map(str, sources),
                    ]
                    words += [
                        "--method",
                        what.split()[1],
                        "--out",
                        str(folder / f"{what}-{number}".replace(" ", "-")),
                    ]
                    words += [] if what == "merge average" else ["--probe", str(probe)]
                runs.append(measure(words, 1))
                if runs[-1]["failed"]:
                    raise SystemExit(f"{what}: {runs[-1]['failed']}")
            rows.append(
                {
                    "what": what,
                    **{key: value for key, value in median(runs).items() if key not in ("said", "failed")},
                }
            )
            print(rows[-1], flush=True)
    once = rows[0]
    for row in rows:
        row |= {
            "cpu_ratio": row["cpu"] / once["cpu"],
            "memory_ratio": row["anonymous_mb"] / once["anonymous_mb"],
        }
    results = {
        "facts": facts(options),
        "date": time.strftime("%Y-%m-%d"),
        "records": options.records,
        "texts": texts,
        "rows": rows,
    }
    (options.results / "merging_statistics.json").write_text(
        json.dumps(results, indent=1) + "\n", encoding="utf-8"
    )
    (options.results / "merging_statistics.md").write_text(markdown(results), encoding="utf-8")


def markdown(results: dict[str, Any]) -> str:
    """The results as a table."""
    known = results["facts"]
    lines = [
        "# Merging with statistics from data",
        "",
        f"{results['date']}; {known['processor']}, 1 core, Python {known['python']}. all-MiniLM-L6-v2, two "
        "vectors, two probe tasks of "
        f"{results['records']} pairs, {results['texts']} texts in all.",
        "Each line is a whole process, start-up and writing included: CPU seconds, and peak anonymous "
        "memory in MB; "
        + (f"medians of {repeats} runs." if (repeats := results["rows"][0]["runs"]) > 1 else "one run each."),
        "",
        "| process | CPU | memory | CPU against embedding once | memory against it |",
        "|---|--:|--:|--:|--:|",
    ]
    for row in results["rows"]:
        lines.append(
            f"| {row['what']} | {row['cpu']:.1f} s | {row['anonymous_mb']:.0f} | {row['cpu_ratio']:.2f}× | "
            f"{row['memory_ratio']:.2f}× |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
