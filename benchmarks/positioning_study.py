"""What Self Positioning is worth on real text: the paper's preset, this project's default and all rivals,
over seeds; and what its parts are worth.

    python benchmarks/positioning_study.py --data ../shared/data/text           # as far as one sitting goes;
    started again it goes on python benchmarks/positioning_study.py --data ../shared/data/text --quick   #
    everything in minutes: does it run?

Specialists of all-MiniLM-L6-v2 for STS (STSBenchmark), classification (Banking77), clustering (StackOverflow
titles) and retrieval (SciFact), in two settings: `equal`, 80 steps each; `unequal`, 20, 80, 80 and 25 steps,
and a fifth vector that learned from shuffled labels. Every model is scored on held-out test data by its
task's measure: Spearman's correlation; accuracy of a logistic regression on ten texts a class; V-measure of
k-means; nDCG@10 among the relevant documents and 500 others. All choices are made on the probe, which is held
out of the training data.

One job after the other, each result one JSON file in --out; the table of rivals comes first, seed by seed,
then the paper's steps, then the ablation seed by seed: one factor at a time about the default, and
granularity × probe size, or with --full all factors crossed. On two cores a seed's specialists and joint
models take about 15 minutes, each rival half a minute, each search of our own one to two minutes more, the
paper's 1,000 steps half an hour, each point of the ablation two to seven minutes; the ablation has 26 points
a seed, with --full 439. The tables (positioning_study.json and .md in benchmarks/results) are written again
after each job.

Two processes may share the work, a seed each, with the same --out. Each job's file says which code made it,
by a hash of what finds coefficients; started with other code, the searches are made again, and what no search
has made stays.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from positioning_study_report import write_report

if TYPE_CHECKING:
    from datasets import Dataset

SOURCES = {
    "sts": "stsbenchmark",
    "classification": "banking77",
    "clustering": "stackoverflow_short",
    "retrieval": "scifact",
}
SETTINGS = {
    "equal": dict.fromkeys(SOURCES, 80),
    "unequal": {"sts": 20, "classification": 80, "clustering": 80, "retrieval": 25, "harmful": 80},
}
RIVALS: dict[str, tuple[str, dict[str, Any]]] = {
    "average": ("average", {}),
    **{
        f"task arithmetic {scale:g}": ("task-arithmetic", {"scale": scale})
        for scale in (0.25, 0.5, 0.75, 1.0)
    },
    "SLERP": ("slerp", {}),
    "multi-SLERP": ("multi-slerp", {}),
    "TIES": ("ties", {}),
    "DARE": ("dare-linear", {}),
    "TSV-M": ("tsv-m", {}),
    "Iso-C": ("iso-c", {}),
    "model stock": ("model-stock", {}),
}
INFORMED = {"Fisher": "fisher", "RegMean": "regmean"}  # look at each specialist on records of its own task
STAGES = ("rivals", "paper", "ablation")
FACTORS: dict[str, list[Any]] = {
    "granularity": ["model", "layer"],
    "objective": [{}, {"normalise": "none"}],
    "records": [192, 128, 64],  # with 77 classes, fewer have no two texts of a class
    "extrapolation": [0.02, 0.0, 0.2],
    "penalty": [0.0, 0.02, 0.1],
}
DESCENTS: list[dict[str, Any]] = [
    {"granularity": granularity} for granularity in ("model", "layer", "tensor")
]
"""Granularity once more by Adam, whose steps cost the same however many coefficients there are."""
ADAM = {"search": "sgd", "steps": 80, "learning_rate": 0.04}


@dataclass(frozen=True)
class Study:
    """One seed in one setting: its data, models and scores below `folder`."""

    data: Path
    folder: Path
    seed: int
    setting: str
    quick: bool
    paper_steps: int

    @property
    def place(self) -> Path:
        return self.folder / "scores" / self.setting / f"seed{self.seed}"

    @cached_property
    def base(self) -> Path:
        from selfpos.storage.locate import locate_model

        return locate_model("all-MiniLM-L6-v2")

    @cached_property
    def records(self) -> dict[str, tuple[Any, Any, Any]]:
        """Task → its type, what it is trained on, and what of that is held out for the probe."""
        from selfpos.data.probe import hold_out
        from selfpos.data.sources import load_source
        from selfpos.tasks import get_task

        found = {}
        for task, folder in SOURCES.items():
            kind = get_task(task)
            split = (
                "test" if task == "clustering" else "train"
            )  # StackOverflow has one file; its last 2,000 titles of a shuffle are our test
            dataset = load_source(folder, kind, split=split, data_root=self.data).dataset
            if task == "clustering":
                dataset = dataset.select(titles(len(dataset))[:-2000])
            found[task] = (kind, *hold_out(dataset, 192, self.seed))
        return found

    def probe(self, records: int = 192) -> dict[str, Any]:
        from selfpos.data.probe import ProbeTask

        return {
            task: ProbeTask(task, kind, held.select(range(records)))
            for task, (kind, _, held) in self.records.items()
        }

    def train(self, name: str, tasks: list[str], steps: int, out: Path) -> Path:
        from selfpos.recipe import TrainingSettings
        from selfpos.training import train

        if out.exists():
            return out
        settings = TrainingSettings(
            steps=2 if self.quick else steps, batch_size=24, learning_rate=5e-5, max_length=64
        )
        data = {task: self.records[task][:2] for task in tasks}
        if name == "harmful":
            kind, dataset = data["classification"]
            data = {"classification": (kind, with_labels_shuffled(dataset, self.seed))}
        train(self.base, data, out, settings, seed=self.seed, name=name)
        return out

    @property
    def specialists(self) -> list[Path]:
        """The models that are merged, trained when they are not there; those of equal training serve both
        settings."""
        models = self.folder / "models" / f"seed{self.seed}"
        return [
            self.train(
                name, ["classification" if name == "harmful" else name], steps, models / f"{name}-{steps}"
            )
            for name, steps in SETTINGS[self.setting].items()
        ]

    def jobs(self) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """Names and work of the table of rivals."""
        yield "base", lambda: {"scores": self.score(self.base)}
        for name in SETTINGS[self.setting]:
            place = list(SETTINGS[self.setting]).index(name)
            yield f"specialist {name}", lambda place=place: {"scores": self.score(self.specialists[place])}  # type: ignore[misc]
        yield "Self Positioning", lambda: self.positioned({})
        for name, (method, params) in RIVALS.items():
            yield name, lambda method=method, params=params: self.merged(method, params=params)  # type: ignore[misc]
        for name, method in INFORMED.items():
            yield name, lambda method=method: self.informed(method)  # type: ignore[misc]
        yield "LM-Cocktail", lambda: self.positioned({"preset": "lm-cocktail"})
        yield "joint", self.joint
        yield "Self Positioning, Adam", lambda: self.positioned(ADAM | ({"steps": 4} if self.quick else {}))

    def paper(self) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """The rival that takes as long as all others."""
        yield "paper", lambda: self.positioned({"preset": "paper", "steps": self.paper_steps})

    def ablation(self, full: bool) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """Names and work of the ablation about the default, which is its first point."""
        for chosen in points(full):
            records, objective = chosen.pop("records"), chosen.pop("objective")
            name = f"{chosen['granularity']}, {words(objective)}, {records} records, "
            name += f"extrapolation {chosen['extrapolation']:g}"
            name += f", penalty {chosen['penalty']:g}" if chosen["penalty"] else ""
            options = {**chosen, **objective, "compare": False}
            yield name, lambda options=options, records=records: self.positioned(options, records)  # type: ignore[misc]
        for chosen in DESCENTS:
            options = {**ADAM, **chosen, "compare": False} | ({"steps": 4} if self.quick else {})
            name = "Adam, " + ", ".join(
                str(value) if name == "granularity" else f"{name} {value:g}" for name, value in chosen.items()
            )
            yield name, lambda options=options: self.positioned(options)  # type: ignore[misc]

    def joint(self) -> dict[str, Any]:
        steps = sum(steps for name, steps in SETTINGS[self.setting].items() if name != "harmful")
        return {
            "scores": self.score(
                self.train(
                    "joint",
                    list(SOURCES),
                    steps,
                    self.folder / "models" / f"seed{self.seed}" / f"joint-{steps}",
                )
            )
        }

    def merged(self, method: str, **options: Any) -> dict[str, Any]:
        """Scores of a merge, whose weights are not kept."""
        from selfpos.merging import merge

        out = self.place / "merged"
        shutil.rmtree(out, ignore_errors=True)
        merge(self.base, self.specialists, method, out, seed=self.seed, show=False, **options)
        scores = self.score(out)
        shutil.rmtree(out)
        return {"scores": scores}

    def informed(self, method: str) -> dict[str, Any]:
        """Scores of a merge by what the specialists do on their own records: the harmful one on shuffled
        labels, as it was trained."""
        from selfpos.data.probe import ProbeTask
        from selfpos.operations import merge

        probe = self.probe()
        if "harmful" in SETTINGS[self.setting]:
            known = probe["classification"]
            probe["harmful"] = ProbeTask(
                "harmful", known.type, with_labels_shuffled(known.dataset, self.seed)
            )
        out = self.place / method
        shutil.rmtree(out, ignore_errors=True)
        merge(
            str(self.base),
            self.specialists,
            method,
            out,
            probe=probe,
            seed=self.seed,
            names=list(SETTINGS[self.setting]),
        )
        scores = self.score(out)
        shutil.rmtree(out)
        return {"scores": scores}

    def positioned(self, options: dict[str, Any], records: int = 192) -> dict[str, Any]:
        from selfpos.positioning.position import position
        from selfpos.recipe import PositioningSettings

        settings = PositioningSettings(max_length=64, **options)
        records = min(records, 64) if self.quick else records
        state = (
            self.place / f"search-{crc32(repr((settings, records)).encode()):08x}.pt"
        )  # the paper's steps take more than one sitting may
        found = position(
            self.base, self.specialists, self.probe(records), settings, seed=self.seed, state=state
        )
        facts = asdict(found)
        facts.pop("tensors")
        scored = self.merged("linear", weights=found.weights) | {"position": facts}
        state.unlink(missing_ok=True)
        return scored

    def score(self, model: Path) -> dict[str, float]:
        """Test scores by task, in percent."""
        from sentence_transformers import SentenceTransformer

        loaded = SentenceTransformer(str(model), device="cpu", local_files_only=True)
        loaded.max_seq_length = 128
        share = 10 if self.quick else 1

        def embed(texts: list[str]) -> np.ndarray:
            found: np.ndarray = loaded.encode(
                texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False
            )
            return found

        return {
            task: 100 * measure(self.data / SOURCES[task], embed, share) for task, measure in MEASURES.items()
        }


def code() -> str:
    """A hash of all that decides what a search finds: the room of positioning, its settings, and the
    measures that points are chosen by."""
    room = Path(__file__).parent.parent / "selfpos"
    files = [
        *sorted((room / "positioning").glob("*.py")),
        room / "recipe" / "positioning.py",
        room / "tasks" / "measure.py",
    ]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


def is_done(file: Path) -> bool:
    """Whether `file` holds the result of a job that this code would make again to the same end."""
    if not file.exists():
        return False
    found = json.loads(file.read_text(encoding="utf-8"))
    return "position" not in found or found.get("code") == code()


def with_labels_shuffled(dataset: Dataset, seed: int) -> Dataset:
    labels = dataset["label"][:]
    random.Random(seed).shuffle(labels)
    return dataset.remove_columns("label").add_column("label", labels)


def titles(count: int) -> list[int]:
    """The order of the StackOverflow titles, the same for every seed; the last 2,000 are the test."""
    return random.Random("titles").sample(range(count), count)


def words(objective: dict[str, Any]) -> str:
    return " ".join(f"{name} {value}" for name, value in objective.items()) or "normalise base"


def points(full: bool) -> list[dict[str, Any]]:
    """The points of the ablation: every value of one factor with the others at their first, and granularity
    × records; or all crossed."""
    every = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]
    if full:
        return every
    away = [{name for name, value in point.items() if value != FACTORS[name][0]} for point in every]
    return [
        point
        for point, moved in zip(every, away, strict=True)
        if len(moved) <= 1 or moved == {"granularity", "records"}
    ]


def sts(folder: Path, embed: Callable[[list[str]], np.ndarray], share: int) -> float:
    from scipy.stats import spearmanr

    from selfpos.data.files import read_records

    rows = read_records(folder / "test.jsonl")[::share]
    left, right = (embed([row[column] for row in rows]) for column in ("sentence1", "sentence2"))
    return float(spearmanr((left * right).sum(1), [row["score"] for row in rows]).statistic)


def classification(folder: Path, embed: Callable[[list[str]], np.ndarray], share: int) -> float:
    """Logistic regression on ten training texts of each class, every second test text."""
    from sklearn.linear_model import LogisticRegression

    from selfpos.data.files import read_records

    groups: dict[str, list[str]] = {}
    for row in read_records(folder / "train.jsonl.gz"):
        groups.setdefault(row["label"], []).append(row["text"])
    known = [
        (text, label)
        for label, found in sorted(groups.items())
        for text in random.Random("heads").sample(found, 10)
    ]
    rows = read_records(folder / "test.jsonl")[:: 2 * share]
    head = LogisticRegression(max_iter=300).fit(
        embed([text for text, _ in known]), [label for _, label in known]
    )
    return float(head.score(embed([row["text"] for row in rows]), [row["label"] for row in rows]))


def clustering(folder: Path, embed: Callable[[list[str]], np.ndarray], share: int) -> float:
    from sklearn.cluster import KMeans
    from sklearn.metrics import v_measure_score

    from selfpos.data.files import read_records

    rows = read_records(folder / "test.jsonl.gz")
    rows = [rows[place] for place in titles(len(rows))[-2000::share]]
    labels = [row["label"] for row in rows]
    found = KMeans(len(set(labels)), n_init=5, random_state=0).fit_predict(
        embed([row["text"] for row in rows])
    )
    return float(v_measure_score(labels, found))


def retrieval(folder: Path, embed: Callable[[list[str]], np.ndarray], share: int) -> float:
    """nDCG@10 (binary) among the documents that some test query wants and 500 others."""
    from selfpos.data.files import document_text, read_beir

    documents, queries, relevant = read_beir(folder, "test")
    asked = list(relevant)[::share]
    wanted = {document for query in asked for document in relevant[query]}
    others = random.Random("corpus").sample(sorted(set(documents) - wanted), 500 // share)
    names = [*sorted(wanted), *others]
    similarities = (
        embed([queries[query] for query in asked])
        @ embed([document_text(documents[name]) for name in names]).T
    )
    gains = []
    for query, row in zip(asked, similarities, strict=True):
        order = [names[place] for place in np.argsort(-row, kind="stable")[:10]]
        gain = sum(1 / np.log2(2 + place) for place, name in enumerate(order) if name in relevant[query])
        gains.append(gain / sum(1 / np.log2(2 + place) for place in range(min(10, len(relevant[query])))))
    return float(np.mean(gains))


MEASURES = {"sts": sts, "classification": classification, "clustering": clustering, "retrieval": retrieval}


def main() -> None:
    from selfpos.storage.atomic import write_text

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the four data sets")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/positioning-study"))
    parser.add_argument("--results", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--paper-steps", type=int, default=1000)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--full", action="store_true", help="cross all factors of the ablation")
    parser.add_argument("--quick", action="store_true", help="two training steps, a tenth of the tests")
    parser.add_argument("--limit", type=int, help="stop after so many jobs")
    options = parser.parse_args()
    steps = 4 if options.quick else options.paper_steps
    studies = [
        Study(options.data, options.out, seed, setting, options.quick, steps)
        for seed in options.seeds
        for setting in options.settings
    ]
    work_of = {
        "rivals": Study.jobs,
        "paper": Study.paper,
        "ablation": lambda study: study.ablation(options.full),
    }
    done = 0
    for stage, study in itertools.product([stage for stage in STAGES if stage in options.stages], studies):
        table = "ablation" if stage == "ablation" else "rivals"
        for name, work in work_of[stage](study):
            file = study.place / table / f"{name}.json"
            if is_done(file):
                continue
            if options.limit is not None and done >= options.limit:
                return
            found = work() | {
                "name": name,
                "stage": table,
                "setting": study.setting,
                "seed": study.seed,
                "quick": study.quick,
                "code": code(),
            }
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(found, indent=1))
            write_report(options.out, options.results)
            done += 1
            mean = sum(found["scores"].values()) / len(found["scores"])
            print(f"{study.setting}, seed {study.seed}, {name}: {mean:.2f}", flush=True)


if __name__ == "__main__":
    main()
