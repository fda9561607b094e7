"""The arms of the study: how each model is made, and its test scores."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import models
from data import plain_texts, probe_of, training_records
from settings import JOINT, MAX_LENGTH, SETTINGS, Setting

from tests import score

MERGES: dict[str, tuple[str, dict[str, Any]]] = {
    "average": ("average", {}),
    "slerp": ("slerp", {}),
    "multi-slerp": ("multi-slerp", {}),
    "ties": ("ties", {}),
    "dare": ("dare-linear", {}),
    "model-stock": ("model-stock", {}),
    "tsv-m": ("tsv-m", {}),
    "iso-c": ("iso-c", {}),
    "wudi": ("wudi", {}),
}
SEARCHES: dict[str, dict[str, Any]] = {
    "self-positioning": {},
    "self-positioning-plain": {"separate": False},  # over the vectors as they are
    "self-positioning-paper": {"preset": "paper", "steps": 200},  # 1,000 in the paper, of a probe of 32,000
    "self-positioning-texts": {},  # 200 texts a specialist, no labels
    "lm-cocktail": {"preset": "lm-cocktail"},
}


@dataclass
class Piece:
    """One setting at one seed: its models below `folder`, its results one JSON file an arm."""

    label: str
    seed: int
    data: Path
    folder: Path
    results: Path

    def __post_init__(self) -> None:
        self.seconds = 0.0  # of searching and merging, the trainings aside

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    @property
    def setting(self) -> Setting:
        return SETTINGS[self.label]

    @property
    def work(self) -> Path:
        return self.folder / f"{self.label}-seed{self.seed}"

    @cached_property
    def specialists(self) -> list[Path]:
        return models.specialists(self.setting, self.seed, self.data, self.folder / "models")

    def arms(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """Name of an arm → what makes and scores it."""
        arms: dict[str, Callable[[], dict[str, Any]]] = {
            "base": lambda: {"scores": self._score(models.base_model())},
            "self-positioning": lambda: self._searched("self-positioning"),
            "self-positioning-plain": lambda: self._searched("self-positioning-plain"),
            "one-scale": lambda: self._one_scale("self-positioning"),
            "task-arithmetic": lambda: self._one_scale("self-positioning-plain"),
            "specialists": self._specialists,
        }
        for name in JOINT:
            arms[name] = lambda name=name: {"scores": self._score(self.joint_model(name))}  # type: ignore[misc]
        for name, (method, options) in MERGES.items():
            arms[name] = lambda method=method, options=options: self.merged(method, params=options)  # type: ignore[misc]
        for name in ("fisher", "regmean"):
            arms[name] = lambda name=name: self._informed(name)  # type: ignore[misc]
        arms["lm-cocktail"] = lambda: self._searched("lm-cocktail")
        arms["self-positioning-texts"] = lambda: self._searched("self-positioning-texts", labels=False)
        arms["greedy-soup"] = self._greedy_soup
        arms["random-vectors"] = self._random_vectors
        arms["self-positioning-paper"] = lambda: self._searched("self-positioning-paper")
        return arms

    def run(self, name: str) -> dict[str, Any]:
        """The result of one arm, made where it is not there yet."""
        from selfpos.storage.atomic import write_text

        file = self.results / self.label / f"seed{self.seed}" / f"{name}.json"
        if file.exists():
            return json.loads(file.read_text(encoding="utf-8"))
        self.seconds = 0.0
        result = {"arm": name, "draws": self._draws(name), **self.arms()[name]()}
        result["seconds"] = round(self.seconds, 1)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(result, indent=1) + "\n")
        return result

    def _draws(self, name: str) -> int:
        return 0 if name == "base" else self.setting.draws

    def joint_model(self, name: str) -> Path:
        return models.joint(name, self.label, self.setting, self.seed, self.data, self.folder / "models")

    def _score(self, model: Path) -> dict[str, float]:
        from sentence_transformers import SentenceTransformer

        loaded = SentenceTransformer(str(model), device="cpu", local_files_only=True)
        return score(loaded, list(self.setting.steps), self.data, self.seed)

    def _specialists(self) -> dict[str, Any]:
        """Each specialist on its own task only: what N models score, not a rival."""
        from sentence_transformers import SentenceTransformer

        from tests import score as scored

        scores = {}
        for task, folder in zip(self.setting.steps, self.specialists, strict=False):
            loaded = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
            scores |= scored(loaded, [task], self.data, self.seed, unseen=False)
        return {"scores": scores}

    def merged(self, method: str, *, folders: list[Path] | None = None, **options: Any) -> dict[str, Any]:
        """Scores of a merge, whose weights are not kept."""
        from selfpos.merging import merge

        out = self.work / "merged"
        shutil.rmtree(out, ignore_errors=True)
        with self._timed():
            sources = folders or self.specialists
            merge(models.base_model(), sources, method, out, seed=self.seed, show=False, **options)
        scores = self._score(out)
        shutil.rmtree(out)
        return {"scores": scores}

    def position(self, settings: Mapping[str, Any], specialists: list[Path], *, labels: bool = True) -> Any:
        """The point that a search with `settings` finds, a `Position`: on the probe, or on plain texts."""
        from selfpos.positioning.position import position
        from selfpos.recipe import PositioningSettings

        chosen = PositioningSettings(max_length=MAX_LENGTH, **settings)
        probe = probe_of(self.setting, self.seed, self.data)
        if not labels:
            probe = plain_texts(self.setting, self.seed, self.data, [folder.name for folder in specialists])
        with self._timed():
            return position(models.base_model(), specialists, probe, chosen, seed=self.seed)

    def _searched(self, name: str, *, labels: bool = True) -> dict[str, Any]:
        found = self.position(SEARCHES[name], self.specialists, labels=labels)
        facts = {key: value for key, value in asdict(found).items() if key != "tensors"}
        return self.merged(**found.merge_options) | {"position": facts}

    def _one_scale(self, search: str) -> dict[str, Any]:
        """One coefficient for all vectors, as `search` tunes it on the probe."""
        from selfpos.positioning.separated import merge_method

        position = self.run(search)["position"]
        method = merge_method(position["separated"])
        weights = [position["scale"]] * len(self.specialists)
        return self.merged(weights=weights, **method) | {"scale": position["scale"]}

    def _informed(self, method: str) -> dict[str, Any]:
        """Fisher and RegMean look at each specialist on records of its own task."""
        from selfpos.data.probe import ProbeTask
        from selfpos.operations import merge

        probe = probe_of(self.setting, self.seed, self.data)
        for stray in self.setting.strays:
            task_type, records = training_records(stray, self.setting, self.seed, self.data)
            probe[stray] = ProbeTask(stray, task_type, records.select(range(192)))
        out = self.work / method
        shutil.rmtree(out, ignore_errors=True)
        names = [*self.setting.steps, *self.setting.strays]
        with self._timed():
            merge(
                str(models.base_model()),
                self.specialists,
                method,
                out,
                probe=probe,
                seed=self.seed,
                names=names,
            )
        scores = self._score(out)
        shutil.rmtree(out)
        return {"scores": scores}

    def _greedy_soup(self) -> dict[str, Any]:
        """Specialists join the average while the probe's mean measure rises (Wortsman et al., 2022)."""
        from probing import ProbeMeasures

        measures = ProbeMeasures(self.specialists, probe_of(self.setting, self.seed, self.data))
        count = len(self.specialists)
        alone = [measures.mean([float(other == index) for other in range(count)]) for index in range(count)]
        chosen: list[int] = []
        best = float("-inf")
        for index in sorted(range(count), key=alone.__getitem__, reverse=True):
            trial = [*chosen, index]
            mean = measures.mean([float(other in trial) / len(trial) for other in range(count)])
            if mean > best:
                chosen, best = trial, mean
        weights = [float(index in chosen) / len(chosen) for index in range(count)]
        return self.merged("linear", weights=weights) | {"weights": weights}

    def _random_vectors(self) -> dict[str, Any]:
        """The default search over vectors of random directions with the specialists' norms, by tensor."""
        from probing import randomised

        folders = [
            randomised(models.base_model(), folder, self.work / f"random-{index}", 100 * self.seed + index)
            for index, folder in enumerate(self.specialists)
        ]
        found = self.position({}, folders)
        result = self.merged(folders=folders, **found.merge_options)
        for folder in folders:
            shutil.rmtree(folder)
        return result | {"coefficients": found.coefficients}
