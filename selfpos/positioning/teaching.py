"""Which model teaches each set of plain texts, and which specialists are not fit to teach.

On its own texts a specialist agrees with itself, even one trained on noise. Other texts show the difference:
a sound specialist still agrees there with the base, and nearly as much as the base does with the specialists
of those texts. One that does neither is no teacher. The base then teaches on its texts, and its coefficient
follows from the other texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from selfpos.console import log
from selfpos.errors import SelfposError, unknown
from selfpos.positioning.matching import Agreement, Matching, similarities
from selfpos.positioning.objective import Batch, TaskProbe, TextTable
from selfpos.tasks.texts import GENERAL, TEXTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from selfpos.positioning.live import LiveModel

BASE = "base"
# Agreement on the texts of others. Specialists of shuffled labels were seen at .27 to .62, the least of a
# real task, trained at a rate of 4e-4, at .74 (docs/retain.md).
SOUND = 0.67
LEAST = 0.05  # agreement below which nothing is divided by it


class TaughtProbe(TaskProbe):
    """Texts of a task, which their teacher judges: all of them, whatever is drawn."""

    def __init__(self, task: TaskProbe, matching: Matching, agreement: Agreement) -> None:
        super().__init__(task.name, task.type, task.dataset, task.temperature)
        self.matching, self.agreement = matching, agreement

    def sample(self, most: int, seed: int) -> Batch:
        """All texts."""
        return self.everything()

    def smooth(self, batch: Batch, temperature: float) -> Matching:
        """How far the texts' neighbours are from those that the teacher gives them."""
        return self.matching

    def measure(self, batch: Batch) -> Agreement:
        """The agreement with the teacher."""
        return self.agreement


@dataclass(frozen=True)
class Teaching:
    """Who teaches which task, and how far each model's similarities agree with the teachers'.

    `agreement` maps task → model (each specialist and the base) → agreement with the task's own specialist,
    of general texts with the base. On the texts of others, `with_base` maps each specialist to its agreement
    with the base, and `shared` to its agreement with their specialists, in shares of what the base's is.
    """

    teachers: dict[str, str]
    agreement: dict[str, dict[str, float]]
    with_base: dict[str, float]
    shared: dict[str, float]


class _Views:
    """What each specialist, and the base (None), makes of all texts."""

    def __init__(self, live: LiveModel, tasks: Mapping[str, TaskProbe]) -> None:
        self.texts = {name: list(task.dataset["text"]) for name, task in tasks.items()}
        self.table = TextTable([text for texts in self.texts.values() for text in texts])
        models = (None, *range(len(live.vectors)))
        self._embeddings = {model: live.embed_by(model, self.table.texts, keep=True) for model in models}

    def of(self, model: int | None, task: str) -> Tensor:
        """Embeddings of the texts of `task` by a specialist or the base."""
        return self._embeddings[model][self.table.rows(self.texts[task])]

    def agreement(self, model: int | None, teacher: int | None, task: str) -> float:
        """The mean agreement of a model with a teacher."""
        judge = Agreement(self.texts[task], similarities(self.of(teacher, task)), of_base=teacher is None)
        return judge.score_of(judge.items(self.of(model, task)), None)


def teach(live: LiveModel, tasks: Mapping[str, TaskProbe]) -> tuple[dict[str, TaskProbe], Teaching | None]:
    """The tasks with a teacher for those that are plain texts, and what is known of the teachers.

    Each model embeds all texts once. Warns of specialists that are no teachers, and of texts that are cut.

    Raises:
        SelfposError: texts have the name of no vector; a specialist's similarities on its own texts are the
            base's, or not finite.
    """
    plain = {name: task for name, task in tasks.items() if task.type is TEXTS}
    if not plain:
        return dict(tasks), None
    names = [vector.name for vector in live.vectors]
    for name in plain:
        if name not in (*names, GENERAL):
            raise unknown("vector", name, [*names, GENERAL])
    if (similarity := live.model.similarity_fn_name) != "cosine":
        log.warning(
            "texts without labels are compared by their cosines, though the model compares by %s", similarity
        )
    views = _Views(live, plain)
    warn_of_long(live, views.table.texts)
    specialist_of = {name: names.index(name) for name in plain if name in names}
    teaching = _teaching(views, names, specialist_of)
    taught = {}
    for name, task in plain.items():
        teacher = specialist_of[name] if teaching.teachers[name] != BASE else None
        target, texts = similarities(views.of(teacher, name)), views.texts[name]
        apart = Matching(texts, target, task.temperature)
        if teacher is not None:
            others: Sequence[int | None] = [None]
        else:
            others = [specialist_of[name]] if name in specialist_of else range(len(names))
        distances = [float(apart.value(views.of(other, name))) for other in others]
        if not sum(distances) > 0:
            who = " and ".join(names) if teacher is None else names[teacher]
            raise SelfposError(
                f"task {name}: {who} and the base find the same similarities between its texts, so there is "
                "nothing to learn: give another model or other texts"
            )
        matching = Matching(texts, target, task.temperature, sum(distances) / len(distances))
        taught[name] = TaughtProbe(task, matching, Agreement(texts, target, of_base=teacher is None))
    return {name: taught.get(name, task) for name, task in tasks.items()}, teaching


def _teaching(views: _Views, names: Sequence[str], specialist_of: Mapping[str, int]) -> Teaching:
    """Who teaches each task, and a warning for each specialist that does not teach its own."""
    agreement = {
        task: {
            name: views.agreement(index, specialist_of.get(task), task) for index, name in enumerate(names)
        }
        | {BASE: views.agreement(None, specialist_of.get(task), task)}
        for task in views.texts
    }
    teachers = {task: task if task in specialist_of else BASE for task in views.texts}
    with_base, shared = {}, {}
    for index, name in enumerate(names):
        others = [task for task in views.texts if task != name]
        with_base[name] = _mean([views.agreement(index, None, task) for task in others])
        shared[name] = _mean([agreement[t][name] / max(agreement[t][BASE], LEAST) for t in others])
        if name in specialist_of and max(with_base[name], shared[name]) < SOUND:
            teachers[name] = BASE
            log.warning(
                "specialist %s is not used as a teacher: on the texts of others its similarities agree "
                "with the base's by %.2f, and with their specialists' by %.0f %% of what the base's do; "
                "sound ones keep more than two thirds of one, so look at its training",
                name, with_base[name], 100 * shared[name],
            )  # fmt: skip
    return Teaching(teachers, agreement, with_base, shared)


def _mean(agreements: Sequence[float]) -> float:
    """Of no texts of others, all that could be."""
    return sum(agreements) / len(agreements) if agreements else 1.0


def warn_of_long(live: LiveModel, texts: Sequence[str]) -> None:
    """A sentence where texts are longer than the model reads."""
    limit = live.model.max_seq_length
    # a StaticEmbedding reads texts of any length, by a tokenizer that cannot be called
    if not limit or not hasattr(live.model.tokenizer, "encode") or not callable(live.model.tokenizer):
        return
    encoded = live.model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
    longer = sum(len(tokens) > limit for tokens in encoded)
    if longer:
        words = "%d of %d texts are longer than the model reads (%d tokens): their beginnings count"
        log.warning(words, longer, len(texts), limit)
