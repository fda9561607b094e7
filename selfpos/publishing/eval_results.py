"""The scores as the Hub's own leaderboards read them: `.eval_results/TASK.yaml`, written by MTEB's own code from its own result files."""

from __future__ import annotations

from selfpos.publishing.scores import Scores

FOLDER = ".eval_results"


def eval_results(scores: Scores, model: str) -> dict[str, bytes]:
    """Path → content, one file for each task of MTEB's that `model` was scored on with the Hub's data; of other scores no leaderboard knows."""
    from mteb.results import TaskResult

    known = {score.task for score in scores.models[model] if scores.from_hub(score)}
    found = {}
    for file in scores.files[model]:
        if file.stem in known:
            found[f"{FOLDER}/{file.stem}.yaml"] = (
                TaskResult.from_disk(file)._to_hf_benchmark_result().to_yaml().encode()
            )
    return found
