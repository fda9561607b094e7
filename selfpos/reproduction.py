"""Making a merged model again from what it says of itself, and telling whether the same bytes come out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError, unknown
from selfpos.publishing.facts import parse_parent
from selfpos.publishing.relink import PUBLISHED
from selfpos.publishing.story import Parent
from selfpos.storage.file_kinds import MANIFEST
from selfpos.storage.hashing import compare_models, content_hash
from selfpos.storage.locate import DEFAULT_MODEL, locate_model
from selfpos.storage.manifest import read_manifest

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.merging import Plan

OURS = {
    "kind",
    "base",
    "merge",
    "versions",
    "statistics",
    PUBLISHED,
}  # what merging and publishing write into a manifest; the rest was given to the merge


# Options of `merging.merge` that decide the bytes of the output, and the fields of the manifest that record them as they were given.
ASKED = {
    "dtype": "dtype_given",
    "shard_size": "shard_size",
    "device": "device",
    "output": "output",
    "rank": "rank",
    "take_from": "take_from",
}


@dataclass(frozen=True)
class Reproduction:
    """What came of making `model` again. `differences` is empty where every file that decides its embeddings has the same bytes."""

    model: str
    files: int
    differences: tuple[str, ...]
    notes: tuple[str, ...]
    out: Path | None

    @property
    def identical(self) -> bool:
        """Whether the same bytes came out."""
        return not self.differences

    def __str__(self) -> str:
        verdict = (
            f"{self.model} was made again byte for byte: {self.files} files equal"
            if self.identical
            else f"{self.model} was made again, but not byte for byte: {'; '.join(self.differences)}"
        )
        return "\n".join([verdict, *self.notes, *([str(self.out)] if self.out else [])])


def reproduce(
    model: str,
    out: Path | None = None,
    *,
    parents: Mapping[str, Path] | None = None,
    probe: Path | None = None,
) -> Reproduction:
    """Repeat the merge that made `model`, a local folder or a Hub id (`USER/NAME[@REVISION]`), and compare.

    Base and parents are taken from the Hub at the commits recorded, or from the folders recorded, or from `parents` (name → folder), and
    must have the content hashes recorded. Learned coefficients are taken as they were found; statistics from data are gathered again, on the
    probe set in the folder `probe`, or in `probe` beside the model or its folder, or as the specialists held it out. The new model is kept in
    `out` where given. Raises SelfposError where `model` is no merge of ours, or a parent or the probe set cannot be had or is another;
    OperationError where the Hub fails.
    """
    from selfpos.merging import METHODS, execute, plan

    folder = locate_model(model)
    told = read_manifest(folder)
    if told is None:
        raise SelfposError(f"{model} has no {MANIFEST}, so it does not say how it was made")
    made = told.get("merge")
    if not isinstance(made, dict) or not made.get("sources"):
        raise SelfposError(
            f"{model} was not made by a merge (kind: {told.get('kind', 'unknown')}); only merges can be repeated"
        )
    if made.get("method") not in METHODS:
        raise unknown("merge method", str(made.get("method")), METHODS)
    method = METHODS[made["method"]]
    if probe is not None and not method.probe:
        raise SelfposError(f"{model} was merged by {method.name} without a look at data; leave --probe away")
    family = [
        parent
        for record in (told.get("base"), *made["sources"])
        if (parent := parse_parent(record)) is not None
    ]
    for name in parents or {}:
        if name not in {parent.name for parent in family}:
            raise unknown("parent", name, {parent.name for parent in family})
    folders = [_locate(parent, model, parents or {}) for parent in family]
    asked: Any = {
        option: made[recorded] for option, recorded in ASKED.items() if made.get(recorded) is not None
    }
    notes = _settle_device(asked)
    names = [parent.name for parent in family[1:]]
    records = (
        _probe(told, model, folder, dict(zip(names, folders[1:], strict=True)), probe) if method.probe else {}
    )
    with _place(out) as place:
        planned = plan(
            folders[0],
            folders[1:],
            method.name,
            place,
            weights=made.get("weights"),
            params=made.get("params"),
            seed=made.get("seed", 0),
            base_name=family[0].name,
            names=names,
            provenance={key: value for key, value in told.items() if key not in OURS},
            **asked,
        )
        with _with_statistics(planned, records) as complete:
            execute(complete)
        files, differences = compare_models(folder, place)
        if differences:
            notes += _other_versions(told, read_manifest(place) or {})
    return Reproduction(model, files, tuple(differences), tuple(notes), out)


def _settle_device(asked: dict[str, Any]) -> list[str]:
    """Take the processor where the merge was made on a GPU and there is none here; says so."""
    if str(asked.get("device", "cpu")).startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            return [f"it was merged on {asked.pop('device')}, and again here on the processor"]
    return []


def _locate(parent: Parent, model: str, given: Mapping[str, Path]) -> Path:
    """The folder of one of the models that were merged, its content checked against the hash recorded."""
    recorded = Path(parent.source) if parent.source else None
    if parent.name in given:
        folder = locate_model(str(given[parent.name]))
    elif parent.repo and (parent.revision or parent.repo.endswith(f"/{DEFAULT_MODEL}")):
        folder = locate_model(f"{parent.repo}@{parent.revision}" if parent.revision else parent.repo)
    elif recorded is not None and recorded.is_dir():
        folder = recorded
    else:
        raise SelfposError(
            f"{model} was merged from {parent.name}, which is neither here nor on the Hub; name its folder with --parent {parent.name}=FOLDER"
        )
    found = content_hash(folder)
    if parent.hash and found != parent.hash:
        raise SelfposError(
            f"{folder} is not the {parent.name} that {model} was merged from: expected content hash {parent.hash[:16]}, found {found[:16]}"
        )
    return folder


def _probe(
    told: Mapping[str, Any], model: str, folder: Path, specialists: Mapping[str, Path], given: Path | None
) -> dict[str, ProbeTask]:
    """The probe set that the statistics of `model` were gathered on, told by the hashes of its tasks."""
    from selfpos.data.probe import FILE, read_probe
    from selfpos.operations import probe_of
    from selfpos.statistics import probe_hash

    recorded: dict[str, dict[str, Any]] = (told.get("statistics") or {}).get("probe") or {}
    if not all(task.get("hash") for task in recorded.values()) or set(recorded) != set(specialists):
        raise SelfposError(
            f"{model} does not say which probe set its statistics are of, so they cannot be gathered again"
        )

    def same(found: Mapping[str, ProbeTask]) -> bool:
        return all(
            name in found and probe_hash(found[name]) == task.get("hash") for name, task in recorded.items()
        )

    if given is not None:
        found = read_probe(given)
        if not same(found):
            raise SelfposError(
                f"{given} is not the probe set that {model} was merged with: the hashes of its records differ from those recorded"
            )
        return {name: found[name] for name in recorded}
    for place in (folder.parent / "probe", folder.parent.parent / "probe"):
        if (place / FILE).is_file() and same(found := read_probe(place)):
            return {name: found[name] for name in recorded}
    try:
        found = dict(zip(specialists, probe_of(list(specialists.values())).values(), strict=True))
        if same(found):
            return found
        reason = "what its specialists held out has changed"
    except SelfposError as error:
        reason = str(error).partition("; give")[0]  # what to give is said once, below
    published = (told.get(PUBLISHED) or {}).get("probe_set")
    shown = ", ".join(f"{name} ({task.get('records')} records)" for name, task in recorded.items())
    raise SelfposError(
        f"{model} was merged with statistics from a probe set of {shown}, which is not at hand ({reason}); give it with --probe FOLDER"
        + (f": it was published as the data set {published}" if published else "")
    )


@contextmanager
def _with_statistics(plan: Plan, probe: Mapping[str, ProbeTask]) -> Iterator[Plan]:
    """The plan as it can be carried out."""
    if not plan.method.probe:
        yield plan
        return
    from selfpos.statistics import gathered

    with gathered(plan, probe) as complete:
        yield complete


@contextmanager
def _place(out: Path | None) -> Iterator[Path]:
    """`out`, or a place that is removed afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="selfpos-reproduce-") as name:
        yield Path(name) / "model"


def _other_versions(told: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Versions that differ between then and now: the first thing to look at."""
    then, here = told.get("versions") or {}, now.get("versions") or {}
    return [
        f"{name} was {version} then and is {here[name]} now"
        for name, version in then.items()
        if here.get(name, version) != version
    ]
