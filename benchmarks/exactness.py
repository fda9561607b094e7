"""Our scores of all-MiniLM-L6-v2 beside the published ones, on data kept locally.

Results go to benchmarks/results/exactness.json and .md.

    python benchmarks/exactness.py --data-dir ../shared/data/text  # half an hour on two cores
    # Some; the others keep what was found before
    python benchmarks/exactness.py --data-dir ../shared/data/text --tasks STSBenchmark

Published scores: embeddings-benchmark/results, model revision 8b3219a92973 (A), and
embeddings-benchmark/mtebpaper, mteb 0.0.2 (P). Finished tasks are kept in --work, so that a stopped run goes
on.

    # Behind two explanations: other draws for AmazonCounterfactual, other orders of copies for MLQuestions
    python benchmarks/exactness.py --data-dir ../shared/data/text --evidence
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from selfpos.console import quiet_process
from selfpos.data import files
from selfpos.data.beir import beir_files, read_beir
from selfpos.evaluation import evaluate, select_tasks
from selfpos.evaluation.embed import EncodingOptions
from selfpos.evaluation.encoder import Embedder, embedding_identity
from selfpos.evaluation.load import load_model
from selfpos.storage.locate import locate_model

MODEL = "all-MiniLM-L6-v2"
SPACES = "punctuation is set off by spaces in MTEB's copy, in ours not; this tokenizer sees the same words"
DRAWS = (
    "mean of ten draws of 32 training texts per label. The draws of mteb 0.0.2 are not those of later "
    "versions, for which no score is published: of the same "
    "model on the same data it published .79750 for Banking77 and .38430 for Emotion, mteb 1.12 .80042 and "
    ".40830, which ours meet. Draws from other places of "
    "a generator begun with 42 are listed in exactness.json; none gives .64149"
)
COPIES = (
    "1,789 of the 11,000 passages are copies of others under other ids, also of the right ones of 411 test "
    "and 415 dev questions; copies are equally near, "
    "and by their order alone the score is .546 to .602 (test) and .528 to .585 (dev)"
)
NUMBERS = (
    "our copy's ids are made MTEB's (WHO-7 for a question, too): the task leaves out the passage that has "
    "the "
    "question's id; without that, .42018 and .58342"
)
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Published:
    """One published score, and why ours may differ from it; `value` None where none was found."""

    task: str
    metric: str
    value: float | None
    source: str
    split: str = "test"
    subset: str = "default"
    tolerance: float = 5e-4
    why: str = ""


SPEARMAN = "cosine_spearman"
A = "A, mteb 1.12.75"
LOWER = f"750 MSRvid pairs are lower-cased; {SPACES}"
PUBLISHED = [
    Published("STSBenchmark", SPEARMAN, 0.82032, A, why="text differs by 13 of 147,886 characters"),
    Published("STS12", SPEARMAN, 0.72369, "A, mteb 2.12.7", tolerance=5e-3, why=LOWER),
    Published("STS13", SPEARMAN, 0.80603, A, why=SPACES),
    Published("STS14", SPEARMAN, 0.75589, "P", tolerance=5e-3, why=SPACES),
    Published("STS15", SPEARMAN, 0.85390, A, why=SPACES),
    Published("STS16", SPEARMAN, 0.78989, A, why=SPACES),
    Published("Banking77Classification", "accuracy", 0.80042, A),
    Published("EmotionClassification", "accuracy", 0.40830, A),
    Published(
        "AmazonCounterfactualClassification", "accuracy", 0.64149, "P", subset="en", tolerance=5e-3, why=DRAWS
    ),
    Published("PoemSentimentClassification", "accuracy", 0.47212, A),
    Published("PoemSentimentClassification", "accuracy", 0.44286, A, split="validation"),
    Published("MLQuestions", "ndcg_at_10", 0.57203, A, why=COPIES),
    Published("MLQuestions", "ndcg_at_10", 0.55439, A, split="dev", why=COPIES),
    Published("FeedbackQARetrieval", "precision_at_1", 0.41968, A, why=NUMBERS),
    Published("FeedbackQARetrieval", "ndcg_at_10", 0.58233, A, why=NUMBERS),
    Published("SciFact", "ndcg_at_10", 0.64508, "P"),
    Published("LIMITSmallRetrieval", "recall_at_2", None, "none found"),
    Published("BIRCO-Relic", "ndcg_at_10", None, "none found"),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with MTEB data kept locally")
    parser.add_argument(
        "--tasks", nargs="+", choices=sorted({row.task for row in PUBLISHED}), help="[default: all]"
    )
    parser.add_argument(
        "--evidence", action="store_true", help="measure what explanations rest on, and nothing else"
    )
    parser.add_argument("--work", type=Path, default=Path("checkpoints") / "exactness")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    quiet_process()
    names = options.tasks or list(dict.fromkeys(row.task for row in PUBLISHED))
    kept = options.out / "exactness.json"
    found = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    rows = found.get("rows", [])
    evidence = found.get("evidence")
    if options.evidence:
        folder = locate_model(MODEL)
        model = load_model(folder)
        embedder = Embedder(model, embedding_identity(folder, model), options.work / "cache")
        evidence = {
            "AmazonCounterfactual (en), other draws": other_draws(
                options.data_dir / "amazon_counterfactual_en", embedder
            ),
            "FeedbackQA, one passage left out": left_out(options.data_dir / "feedbackqa", embedder),
            "MLQuestions, other orders of copies": {
                split: orders_of_copies(options.data_dir / "mlquestions", split, embedder)
                for split in ("test", "validation")
            },
        }
        names = []
        write(options.out, rows, evidence)
    for name in names:
        tasks = select_tasks([name], data_dir=options.data_dir)
        score = evaluate(locate_model(MODEL), tasks, options.work, name=MODEL, cache=options.work / "cache")[
            name
        ]
        result = json.loads(score.file.read_text(encoding="utf-8"))
        rows = [row for row in rows if row["task"] != name] + [
            compared(row, result) for row in PUBLISHED if row.task == name
        ]
        order = [row.task for row in PUBLISHED]
        rows.sort(key=lambda row: order.index(row["task"]))
        write(options.out, rows, evidence)


def compared(row: Published, result: dict[str, Any]) -> dict[str, Any]:
    """The published score, ours from MTEB's result file, and whether they are as near as they should be."""
    ours = next(part[row.metric] for part in result["scores"][row.split] if part["hf_subset"] == row.subset)
    found = None if row.value is None else abs(ours - row.value)
    within = None if found is None else found <= row.tolerance
    return asdict(row) | {"ours": ours, "difference": found, "within": within, "mteb": result["mteb_version"]}


def embedded(embedder: Embedder, texts: list[str]) -> Any:
    return embedder.rows(texts, EncodingOptions(None), 32, embedder.model.encode)


def other_draws(data: Path, embedder: Embedder) -> dict[str, Any]:
    """Accuracy on AmazonCounterfactual (en) had the training texts been drawn otherwise, from one generator
    begun with 42.

    mteb shuffles the places of the training texts ten times, each time the order of the time before, and
    takes the first 32 of each label. It begins the generator with 42 anew before each shuffle ("begun anew";
    mteb 1.0 does so whenever it makes an evaluator), or might not have ("going on"); and the generator might
    have shuffled 0 to 11 times before the first.
    """
    tables = [
        files.read_records(files.find(data, split, (".jsonl", ".jsonl.gz")) or data)
        for split in ("train", "test")
    ]
    texts = [embedded(embedder, [row["text"] for row in rows]) for rows in tables]
    right = [np.array([row["label"] for row in rows]) for rows in tables]

    def accuracy(before: int, anew: bool) -> float:
        rng = np.random.RandomState(42)
        for _ in range(before):
            rng.shuffle(np.arange(len(right[0])))
        order, scores = np.arange(len(right[0])), []
        for _ in range(10):
            rng.shuffle(order)
            taken: dict[int, int] = defaultdict(int)
            drawn = []
            for place in order:
                label = right[0][place]
                if taken[label] < 32:
                    taken[label] += 1
                    drawn.append(place)
            classifier = LogisticRegression(random_state=42, max_iter=100).fit(
                texts[0][drawn], right[0][drawn]
            )
            scores.append(float((classifier.predict(texts[1]) == right[1]).mean()))
            if anew:
                rng = np.random.RandomState(42)
        return round(sum(scores) / len(scores), 6)

    return {"published": 0.641493} | {
        name: [accuracy(before, anew) for before in range(12)]
        for name, anew in (("begun anew", True), ("going on", False))
    }


def left_out(data: Path, embedder: Embedder) -> dict[str, Any]:
    """Precision@1 and nDCG@10 when each question's list lacks the passage of the question's source and number
    in the ids, or of its place in the files.
    """
    documents, queries, relevant, _ = read_beir(data, beir_files(data, "test"))
    places = {key: place for place, key in enumerate(documents)}
    asked = [key for key in queries if key in relevant]
    scores = (
        embedded(embedder, [queries[key] for key in asked])
        @ embedded(embedder, [text["text"] for text in documents.values()]).T
    )
    right = np.array([places[next(iter(relevant[key]))] for key in asked])
    alike = [
        places.get("-".join((key.split("-")[0], key.split("-")[-1]))) for key in asked
    ]  # WHO-test-7 and WHO-7
    gone = {
        "nothing": [None] * len(asked),
        "of its source and number": alike,
        "of its place": list(range(len(asked))),
    }

    def measured(out: list[int | None]) -> dict[str, float]:
        own = scores[np.arange(len(asked)), right]
        ranks = (scores > own[:, None]).sum(1)
        for row, place in enumerate(out):
            if place == right[row]:
                ranks[row] = 10
            elif place is not None and scores[row, place] > own[row]:
                ranks[row] -= 1
        gains = np.where(ranks < 10, 1 / np.log2(ranks + 2), 0)
        return {
            "precision_at_1": round(float((ranks == 0).mean()), 6),
            "ndcg_at_10": round(float(gains.mean()), 6),
        }

    return {name: measured(out) for name, out in gone.items()}


def orders_of_copies(data: Path, split: str, embedder: Embedder) -> dict[str, Any]:
    """nDCG@10 when of passages with the same text the right one comes first, and when it comes last.

    Each question has one right passage.
    """
    documents, queries, relevant, _ = read_beir(data, beir_files(data, split))
    places = {key: place for place, key in enumerate(documents)}
    numbers: dict[str, int] = {}
    passages = [
        " ".join([document.get("title", ""), document["text"]]).strip() for document in documents.values()
    ]
    group = np.array([numbers.setdefault(text, len(numbers)) for text in passages])
    asked = [key for key in queries if key in relevant]
    scores = embedded(embedder, [queries[key] for key in asked]) @ embedded(embedder, passages).T
    gains: dict[str, list[float]] = {"first": [], "last": []}
    with_copies = 0
    for row, key in zip(scores, asked, strict=True):
        right = places[next(document for document, grade in relevant[key].items() if grade > 0)]
        copy = group == group[right]
        above, copies = int(((row > row[right]) & ~copy).sum()), int(copy.sum()) - 1
        with_copies += copies > 0
        for name, rank in (("first", above), ("last", above + copies)):
            gains[name].append(1 / math.log2(rank + 2) if rank < 10 else 0.0)
    return {"questions": len(asked), "with copies": with_copies} | {
        name: round(float(np.mean(values)), 6) for name, values in gains.items()
    }


def write(out: Path, rows: list[dict[str, Any]], evidence: dict[str, Any] | None = None) -> None:
    lines = [
        "| task | split | metric | published | ours | difference | within | source | why it differs |",
        "|---|---|---|---:|---:|---:|---|---|---|",
    ]
    for row in rows:
        where = row["split"] if row["subset"] == "default" else f"{row['split']} ({row['subset']})"
        published, difference = (
            "–" if row[key] is None else f"{row[key]:.5f}" for key in ("value", "difference")
        )
        within = {None: "–", True: f"{row['tolerance']:g}", False: f"no ({row['tolerance']:g})"}[
            row["within"]
        ]
        lines.append(
            f"| {row['task']} | {where} | {row['metric']} | {published} | {row['ours']:.5f} | {difference} | "
            f"{within} | {row['source']} | {row['why']} |"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / "exactness.json").write_text(
        json.dumps({"model": MODEL, "rows": rows, "evidence": evidence}, indent=1) + "\n", encoding="utf-8"
    )
    (out / "exactness.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    main()
