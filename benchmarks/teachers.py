"""How specialists of real tasks, a useless one and one of shuffled labels agree with the others on plain
texts: what `--texts` tells a teacher by.

    python benchmarks/teachers.py --data FOLDER --seeds 0 1

The specialists are those of the study's setting with a useless and a harmful one, and the fine-tunes of
`retain.py` at its rates, the first seed. 200 texts a specialist, none of which it was trained on but for the
useless and the harmful one.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import retain

RESULTS = Path(__file__).parent / "results"
SETTING = "useless-and-harmful"
TEXTS_EACH = 200


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="of the study's specialists")
    parser.add_argument("--study-models", type=Path, default=Path("checkpoints/study/models"))
    parser.add_argument("--retain-models", type=Path, default=Path("checkpoints/retain"))
    parser.add_argument("--out", type=Path, default=RESULTS / "teachers.json")
    options = parser.parse_args()
    found = {f"study, seed {seed}": of_study(seed, options) for seed in options.seeds}
    found["retain, seed 0"] = of_retain(options)
    options.out.write_text(json.dumps(found, indent=1) + "\n")
    options.out.with_suffix(".md").write_text(table(found))


def of_study(seed: int, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """The agreements of the study's specialists at one seed."""
    sys.path.insert(0, str(Path(__file__).parent / "study"))
    import models
    from data import plain_texts
    from settings import SETTINGS

    folders = models.specialists(SETTINGS[SETTING], seed, options.data, options.study_models)
    names = [folder.name for folder in folders]
    probe = plain_texts(SETTINGS[SETTING], seed, options.data, names)
    return agreements(folders, names, {name: task.records["text"][:] for name, task in probe.items()})


def of_retain(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Those of the fine-tunes of `retain.py`."""
    from selfpos.data.probe import positive_texts
    from selfpos.data.texts import read_texts
    from selfpos.tasks.texts import GENERAL

    texts, folders = {GENERAL: read_texts("corpus", most=TEXTS_EACH).texts}, []
    for domain in retain.DOMAINS:
        folders.append(options.retain_models / f"{domain}-seed0" / "fine-tune")
        if not folders[-1].exists():
            retain.fine_tuned(domain, 0, options.data, folders[-1])
        _, validation, _ = retain.domain_parts(domain, options.data, 250)
        own = sorted({text for record in positive_texts(validation) for text in record})
        texts[domain] = random.Random(0).sample(own, min(TEXTS_EACH, len(own)))
    return agreements(folders, list(retain.DOMAINS), texts)


def agreements(
    folders: Sequence[Path], names: Sequence[str], texts: Mapping[str, Any]
) -> dict[str, dict[str, float]]:
    """Specialist → agreement with the base and with the others' specialists, on the texts of others."""
    from datasets import Dataset

    from selfpos.positioning.objective import TaskProbe
    from selfpos.positioning.position import open_live
    from selfpos.positioning.teaching import teach
    from selfpos.recipe import PositioningSettings
    from selfpos.storage.locate import locate_model
    from selfpos.tasks.texts import GENERAL, TEXTS

    settings = PositioningSettings(separate=False, max_length=retain.LENGTH)
    live = open_live(locate_model("all-MiniLM-L6-v2"), list(folders), settings, "cpu")
    vector_of = dict(zip(names, (vector.name for vector in live.vectors), strict=True)) | {GENERAL: GENERAL}
    tasks = {
        vector_of[name]: TaskProbe(vector_of[name], TEXTS, Dataset.from_dict({"text": some}), 0.05)
        for name, some in texts.items()
    }
    _, teaching = teach(live, tasks)
    assert teaching is not None
    return {
        name: {"base": teaching.with_base[vector_of[name]], "specialists": teaching.shared[vector_of[name]]}
        for name in names
    }


def table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """The agreements for people."""
    from selfpos.console import markdown_table

    rows = [
        [run, name, f"{values['base']:.2f}", f"{values['specialists']:.2f}"]
        for run, specialists in found.items()
        for name, values in specialists.items()
    ]
    columns = ["specialists of", "specialist", "with the base", "with the others' specialists"]
    text = [
        "# Agreement on the texts of others",
        "",
        "That with the others' specialists is in shares of what the base's is.",
        "",
        markdown_table(columns, rows),
        "",
    ]
    return "\n".join(text)


if __name__ == "__main__":
    main()
