"""Making a merged model again from its manifest, and saying whether the same bytes come out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selfpos.errors import SelfposError, unknown
from selfpos.publishing.facts import PUBLISHED, Parent, parse_parent
from selfpos.recipe.merging import MergeOptions
from selfpos.storage.file_kinds import MANIFEST
from selfpos.storage.hashing import compare_models, content_hash
from selfpos.storage.locate import DEFAULT_MODEL, locate_model
from selfpos.storage.manifest import read_manifest
from selfpos.storage.model_folder import refuse_pickles
from selfpos.storage.pickles import without_pickles

if TYPE_CHECKING:
    from selfpos.data.probe import ProbeTask
    from selfpos.merging import Method

WRITTEN = {"kind", "base", "merge", "versions", "statistics", PUBLISHED}
"""What merging and publishing write into a manifest; the rest was given to the merge."""


@dataclass(frozen=True)
class Reproduction:
    """The result of making `model` again; `differences` is empty when all files are equal."""

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
        verdict = f"{self.model} was made again byte for byte: {self.files} files equal"
        if self.differences:
            verdict = f"{self.model} was made again, but not byte for byte: {'; '.join(self.differences)}"
        return "\n".join([verdict, *self.notes, *([str(self.out)] if self.out else [])])


def reproduce(
    model: str,
    out: Path | None = None,
    *,
    parents: Mapping[str, Path] | None = None,
    probe: Path | None = None,
    allow_pickle: bool = False,
) -> Reproduction:
    """Repeat the merge that made `model`, a local folder or a Hub id (`USER/NAME[@REVISION]`), and compare.

    Base and parents come from `parents` (name → folder), the Hub at the recorded commits, or the recorded
    folders, and must have the recorded content hashes; with `allow_pickle`, pickled weights are read as the
    merge read them, their tensors only. Learned coefficients are taken as recorded; statistics
    are gathered again on `probe`, or on `probe` beside the model or its folder, or on what the specialists
    held out. `out` keeps the new model. Raises SelfposError where `model` is not a merge of this package, or
    a parent or the probe set is missing or another; OperationError where the Hub fails.
    """
    from selfpos.merging import execute, plan
    from selfpos.retention.index import add_correction, recorded_correction
    from selfpos.statistics import gathered

    folder = locate_model(model)
    manifest = read_manifest(folder)
    if not manifest:
        raise SelfposError(f"{model} has no {MANIFEST}, so it does not say how it was made")
    record, method = _recorded_merge(model, manifest)
    if probe is not None and not method.probe:
        raise SelfposError(f"{model} was merged by {method.name}, which uses no data; omit --probe")
    family = [parent for part in (manifest.get("base"), *record["sources"]) if (parent := parse_parent(part))]
    folders = parents or {}
    for name in folders:
        if name not in {parent.name for parent in family}:
            raise unknown("parent", name, {parent.name for parent in family})
    base, *sources = (_locate(parent, model, folders, allow_pickle) for parent in family)
    names = [parent.name for parent in family[1:]]
    options = MergeOptions.from_record(record)
    notes = _settle_device(options)
    tasks = {}
    if method.probe:
        tasks = _probe(manifest, model, folder, base, dict(zip(names, sources, strict=True)), probe)
    with _output(out) as made:
        planned = plan(
            base,
            sources,
            method.name,
            made,
            base_name=family[0].name,
            names=names,
            provenance={key: value for key, value in manifest.items() if key not in WRITTEN},
            **options,
        )
        with gathered(planned, tasks) if method.probe else nullcontext(planned) as complete:
            execute(complete)
        if digest := (manifest.get("retain") or {}).get("correction"):
            add_correction(made, recorded_correction(folder, digest))
        files, differences = compare_models(folder, made)
        if differences:
            notes += _other_versions(manifest, read_manifest(made))
    return Reproduction(model, files, tuple(differences), tuple(notes), out)


def _recorded_merge(model: str, manifest: dict[str, Any]) -> tuple[dict[str, Any], Method]:
    from selfpos.merging import METHODS

    record = manifest.get("merge")
    if not isinstance(record, dict) or not record.get("sources"):
        kind = manifest.get("kind", "unknown")
        raise SelfposError(f"{model} was not made by a merge (kind: {kind}); only merges can be repeated")
    if record.get("method") not in METHODS:
        raise unknown("merge method", str(record.get("method")), METHODS)
    return record, METHODS[record["method"]]


def _settle_device(options: dict[str, Any]) -> list[str]:
    """Take the CPU where the merge was made on a GPU and there is none here; returns a note that says so."""
    if str(options.get("device", "cpu")).startswith("cuda"):
        import torch

        if not torch.cuda.is_available():
            return [f"it was merged on {options.pop('device')}, and again here on the processor"]
    return []


def _locate(parent: Parent, model: str, folders: Mapping[str, Path], allow_pickle: bool) -> Path:
    """The folder of one of the models that were merged, its content checked against the recorded hash."""
    if parent.name in folders:
        folder = locate_model(str(folders[parent.name]), pickles=allow_pickle)
    elif parent.repo and (parent.revision or parent.repo.endswith(f"/{DEFAULT_MODEL}")):
        name = f"{parent.repo}@{parent.revision}" if parent.revision else parent.repo
        folder = locate_model(name, pickles=allow_pickle)
    elif parent.folder is not None:
        folder = parent.folder
    else:
        raise SelfposError(
            f"{model} was merged from {parent.name}, which is neither here nor on the Hub; name its folder "
            f"with --parent {parent.name}=FOLDER"
        )
    if allow_pickle:
        folder = without_pickles(folder)
    refuse_pickles(folder)
    digest = content_hash(folder)
    if parent.hash and digest != parent.hash:
        raise SelfposError(
            f"{folder} is not the {parent.name} that {model} was merged from: expected content hash "
            f"{parent.hash[:16]}, found {digest[:16]}"
        )
    return folder


def _probe(
    manifest: Mapping[str, Any],
    model: str,
    folder: Path,
    base: Path,
    specialists: Mapping[str, Path],
    given: Path | None,
) -> dict[str, ProbeTask]:
    """The probe set that the statistics were gathered on, recognised by the hashes of its tasks."""
    from selfpos.data.probe import FILE, read_probe
    from selfpos.operations import probe_of
    from selfpos.positioning.position import probe_for
    from selfpos.statistics import probe_hash

    recorded: dict[str, dict[str, Any]] = (manifest.get("statistics") or {}).get("probe") or {}
    hashes = {name: task.get("hash") for name, task in recorded.items()}
    if not all(hashes.values()) or set(hashes) != set(specialists):
        raise SelfposError(
            f"{model} does not say which probe set its statistics are of, so they cannot be gathered again"
        )

    def matching(tasks: Mapping[str, ProbeTask]) -> dict[str, ProbeTask] | None:
        try:
            tasks = probe_for(base, tasks)
        except SelfposError:  # tasks of another class of models
            return None
        same = all(name in tasks and probe_hash(tasks[name]) == digest for name, digest in hashes.items())
        return {name: tasks[name] for name in hashes} if same else None

    if given is not None:
        if tasks := matching(read_probe(given)):
            return tasks
        raise SelfposError(
            f"{given} is not the probe set that {model} was merged with: the hashes of its records differ "
            "from those recorded"
        )
    for beside in (folder.parent / "probe", folder.parent.parent / "probe"):
        if (beside / FILE).is_file() and (tasks := matching(read_probe(beside))):
            return tasks
    try:
        drawn = probe_of(list(specialists.values()))
        if tasks := matching(dict(zip(specialists, drawn.values(), strict=True))):
            return tasks
        reason = "what its specialists held out has changed"
    except SelfposError as error:
        reason = str(error).partition("; give")[0]  # what to give is said once, below
    published = (manifest.get(PUBLISHED) or {}).get("probe_set")
    shown = ", ".join(f"{name} ({task.get('records')} records)" for name, task in recorded.items())
    hint = f": it was published as the data set {published}" if published else ""
    raise SelfposError(
        f"{model} was merged with statistics from a probe set of {shown}, which is not at hand ({reason}); "
        f"give it with --probe FOLDER{hint}"
    )


@contextmanager
def _output(out: Path | None) -> Iterator[Path]:
    """`out`, or a temporary path."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="selfpos-reproduce-") as name:
        yield Path(name) / "model"


def _other_versions(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Versions that differ between then and now: the first thing to look at."""
    then, here = before.get("versions") or {}, now.get("versions") or {}
    return [
        f"{name} was {version} then and is {here[name]} now"
        for name, version in then.items()
        if here.get(name, version) != version
    ]
