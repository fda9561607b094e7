"""Keep what a fine-tune learned and what its base knew: search, merge, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selfpos.console import log
from selfpos.data.sources import hash_records
from selfpos.errors import OptionNeededError, SelfposError
from selfpos.merging import merge as merge_folders
from selfpos.merging import plan
from selfpos.operations import Sources, add_card, located, probe_of
from selfpos.recipe import PositioningSettings, RetainSettings
from selfpos.storage.atomic import refuse_existing, write_bytes, write_text
from selfpos.storage.file_kinds import TRANSFORMER_CONFIG
from selfpos.storage.networks import TRANSFORMERS
from selfpos.vectors import open_vectors, tensor_gram
from selfpos.vectors.match import paired
from selfpos.vectors.names import is_linear_map

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.merging import Plan
    from selfpos.retention.front import Point
    from selfpos.retention.index import Correction
    from selfpos.retention.search import Retained
    from selfpos.storage.model_folder import ModelFolder

FARTHEST = 0.5  # a fine-tune's change in lengths of the base; fine-tunes lie below .2, other models above 1
FARTHEST_TABLE = 1.0  # of models that are nothing but tables, which are trained at higher rates


def retain(
    base: str | Path,
    tuned: Sources,
    out: str | Path,
    settings: RetainSettings,
    *,
    say: Callable[[str], object] = print,
    **options: Any,
) -> dict[str, Any]:
    """Find how much of a fine-tune may be kept, and write that model with its front and a card.

    Args:
        base: the base model: a folder or a name on the Hub.
        tuned: models fine-tuned from it on one domain: one, or several runs or checkpoints.
        out: the folder to write; it must not exist. Beside it come `OUT.front.json` and `OUT.front.png`, in
            place of those of an earlier model.
        settings: both sides, promise, space and index.
        say: called with lines about the data.
        options: the fields of `selfpos.recipe.MergeOptions` without weights and params.

    Returns:
        The front and the point taken, as `OUT.front.json` has them.

    Raises:
        SelfposError: models or data do not fit, nothing was gained, or no point keeps the promise.
    """
    from selfpos.positioning.position import open_live
    from selfpos.retention.search import search
    from selfpos.retention.sources import read_sides

    out = Path(out)
    refuse_existing(out)
    folder, sources = located(base, tuned)
    planned = _planned(folder, sources, out, options)
    check_family(planned.base, sources)
    _warn_of_cut_texts(planned.base, sources)
    tasks = read_sides(planned.base, settings, partial(_held_out, sources), say)
    search_settings = PositioningSettings(separate=False, max_length=settings.max_length)
    live = open_live(folder, sources, search_settings, settings.device)
    retained = search(live, tasks, settings)
    for sentence in retained.warnings:
        log.warning(sentence)
    facts = facts_of(retained, settings)
    picture = _drawn(facts)  # it takes seconds, in which a folder without it could be left
    merge_options = {**options, "weights": retained.weights, "provenance": {"retain": facts}}
    merge_folders(
        folder, sources, "linear", out, finish=partial(_finish, retained.correction), **merge_options
    )
    front_file, picture_file = front_files(out)
    write_text(front_file, json.dumps(facts, indent=1) + "\n")
    write_bytes(picture_file, picture)
    return facts


def _planned(folder: Path, sources: Sequence[Path], out: Path, options: Mapping[str, Any]) -> Plan:
    """The plan of the merge. What an option says elsewhere is another merge before this."""
    try:
        return plan(folder, sources, "linear", out, **options)
    except OptionNeededError as error:
        raise SelfposError(f"{error}; retain has no such option: {error.instead}") from None


def front_files(out: Path) -> tuple[Path, Path]:
    """Where the front of the model `out` goes, as JSON and as a picture."""
    return out.with_name(f"{out.name}.front.json"), out.with_name(f"{out.name}.front.png")


def _held_out(tuned: Sequence[Path]) -> dict[str, ProbeTask]:
    """What `finetune` held out of each fine-tune's data, equal sets once."""
    try:
        probe = probe_of(tuned)
    except SelfposError as error:
        raise type(error)(
            f"{error}, or its domain with --domain: TYPE=FILE of records, or a file of plain texts"
        ) from None
    distinct = {hash_records(task.records): task for task in probe.values()}
    return {task.name: task for task in distinct.values()}


def check_family(base: ModelFolder, sources: Sequence[Path]) -> None:
    """Raise SelfposError for a fine-tune that has the base's weights, or lies too far from it to be one."""
    matrices = [key for key in _mergeable(base) if is_linear_map(key, base.tensors[key].shape)]
    compared, farthest = (matrices, FARTHEST) if matrices else (_mergeable(base), FARTHEST_TABLE)
    length = sum(float(np.square(base.read_float32(key)).sum()) for key in compared)
    for vector in open_vectors(base, sources):
        moved = {key: float(tensor_gram([vector], key)[0, 0]) for key in vector.keys}
        if not any(moved.values()):
            raise SelfposError(f"{vector.source} has the weights of the base, so there is nothing to retain")
        share = (sum(moved[key] for key in compared) / length) ** 0.5 if length else 0.0
        if share > farthest:
            raise SelfposError(
                f"{vector.source} is no fine-tune of {base.path}: its matrices lie {share:.2f} of the base's "
                f"own length away, and fine-tunes lie below {farthest}; give the model it was trained from"
            )


def _warn_of_cut_texts(base: ModelFolder, sources: Sequence[Path]) -> None:
    """A sentence for each fine-tune that reads more of a text than the base, whose limit the merge keeps."""
    from selfpos.training.models import token_limit

    for vector in open_vectors(base, sources):
        for mine, theirs in paired(base, vector.folder):
            kept = token_limit(base.path / mine.path)
            read = token_limit(vector.source / theirs.path)
            if mine.kind in TRANSFORMERS and kept and read and read > kept and not vector.folder.is_adapter:
                log.warning(
                    "%s reads %d tokens of a text, and the base %d, as the merged model will: give a copy of "
                    "the base with max_seq_length %d in its %s where longer texts count",
                    *(vector.source.name, read, kept, read, TRANSFORMER_CONFIG),
                )


def _mergeable(base: ModelFolder) -> list[str]:
    return [key for key, entry in base.tensors.items() if entry.mergeable]


def facts_of(retained: Retained, settings: RetainSettings) -> dict[str, Any]:
    """The front and the point taken, as JSON: scores, and shares of the gain kept and of the loss undone."""
    scale, judge = retained.scale, retained.scale.judge
    below = scale.below(retained.chosen)

    def row(point: Point) -> dict[str, Any]:
        place = point.place
        return {
            "line": place.line, "alpha": place.alpha, "ramp": place.ramp,
            "domain": scale.mean(point, "domain"), "general": scale.mean(point, "general"),
            "kept": scale.kept(point), "undone": scale.undone(point) if scale.forgot else None,
            "scores": point.scores,
        }  # fmt: skip

    facts: dict[str, Any] = {
        "settings": settings.model_dump(mode="json"),
        "tasks": {"domain": judge.names("domain"), "general": judge.names("general")},
        "tolerated": {name: task.tolerated for name, task in judge.tasks.items() if task.tolerated},
        "base": row(scale.base), "tuned": row(scale.tuned), "chosen": row(retained.chosen),
        "front": [row(point) for point in retained.points],
        "kept": retained.kept, "undone": retained.undone,
        "drops": [vars(drop) for drop in below if drop.clear],
        "worst": vars(min(below, key=lambda drop: drop.worst)),
        "warnings": retained.warnings,
    }  # fmt: skip
    if retained.index:
        again = {name: scale.mean(point, "domain") for name, point in retained.index.items()}
        facts["index"] = {
            "base's questions, the base's documents": facts["base"]["domain"],
            "new questions, the base's documents": facts["chosen"]["domain"],
            **again,
            "fine-tune's questions, all documents embedded again": facts["tuned"]["domain"],
        }
    if retained.correction is not None:
        facts["correction"] = retained.correction.hash
    return facts


def _finish(correction: Correction | None, out: Path, folder: Path) -> None:
    """Add the correction to the merged model, if its base's index is kept, and the card."""
    from selfpos.retention.index import add_correction

    if correction is not None:
        add_correction(folder, correction)
    add_card(out, folder)


def _drawn(facts: dict[str, Any]) -> bytes:
    from selfpos.report.figures import png, retained_front

    return png(retained_front(facts))
