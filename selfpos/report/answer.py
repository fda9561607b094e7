"""What a run found, in a few sentences: the best merge beside the rivals that matter."""

from __future__ import annotations

from selfpos.comparison import Difference
from selfpos.comparison.differences import MEAN
from selfpos.report.results import Results

KINDS = {
    "base": "the base",
    "joint": "the joint model",
    "specialist": "the best specialist",
    "merge": "the next merge",
    "model": "the next model",
}


def findings(results: Results) -> str:
    """The best merge, else the best model, by the mean over tasks, and how it stands to its rivals: the best
    one of each kind. Empty where no model has all scores.
    """
    means = {model: mean for model in results.scores if (mean := results.mean(model)) is not None}
    if not means:
        return ""
    ranked = sorted(means, key=lambda model: -means[model])
    merges = [model for model in ranked if results.kinds[model] in ("merge", "positioned")]
    best = next(iter(merges), ranked[0])
    subject = "The best merge is" if merges else "The best model is"
    tasks = _counted(len(results.tasks), "task")
    answer = f"{subject} {best}, with a mean of {100 * means[best]:.2f} over {tasks}."
    rivals: dict[str, str] = {}
    for model in ranked:
        kind = results.kinds[model]
        if model != best:
            rivals.setdefault("merge" if kind == "positioned" else kind, model)
    if not rivals:
        return answer if len(results.kinds) > 1 else ""
    gains = _gains(results, best)
    parts = [
        _standing(_named(model, kind), means[best] - means[model], gains.get(model))
        for kind, model in rivals.items()
    ]
    picked = "It was picked by these scores, which flatters it"
    if any(gain is not None and gain.significant is not None for gain in gains.values()):
        picked += f"; Holm's correction is over all {_counted(len(gains) - 1, 'model')} beside it"
    return f"{answer} In points, with the 95 % interval of each difference: {'; '.join(parts)}. {picked}."


def _gains(results: Results, best: str) -> dict[str, Difference | None]:
    """Model → the difference of its mean to that of `best`, corrected over all models of the run's table.

    What the table says of `best` and its own baseline is taken from there, for the two to agree.
    """
    if results.comparison is None or all(model.name != best for model in results.scored):
        return {}
    rows = results.compared_to(best).rows
    gains = {row.model: row.differences.get(MEAN) for row in rows}
    of_best = next(row.differences.get(MEAN) for row in results.comparison.rows if row.model == best)
    if of_best is not None and best != results.baseline:
        gains[results.baseline] = -of_best
    return gains


def _named(model: str, kind: str) -> str:
    said = KINDS.get(kind, f"the best of {kind}")
    return said if model in (kind, said) else f"{said}, {model}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("s" if count != 1 else "")


def _standing(rival: str, value: float, gain: Difference | None) -> str:
    """How far ahead of `rival` the model is; `gain` is the rival's difference to the model."""
    side = "ahead of" if value >= 0 else "behind"
    text = f"{abs(100 * value):.2f} {side} {rival}"
    if gain is None or gain.low is None or gain.high is None or gain.significant is None:
        return f"{text} (no interval: the examples behind the scores were not kept)"
    low, high = sorted(
        sign * 100 * end for end in (gain.low, gain.high) for sign in [-1 if value >= 0 else 1]
    )
    interval = f"{round(low, 2) + 0.0:+.2f} to {round(high, 2) + 0.0:+.2f}"
    if gain.significant:
        return f"{text} ({interval})"
    reason = " by Holm's correction" if gain.before_correction else ""
    return f"{text} ({interval}, not significant{reason})"
