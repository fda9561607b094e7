"""The paper's search: Adam on the parameters of the space, one batch of the probe a step (arXiv 2410.15035, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from selfpos.console import progress
from selfpos.positioning.judge import Judge
from selfpos.positioning.objective import Draws
from selfpos.positioning.problem import Problem
from selfpos.positioning.trajectory import Trajectory

REFERENCE_RECORDS = 128  # of each task, on which the losses that others are divided by are measured


def search(problem: Problem, judge: Judge | None, trajectory: Trajectory, *, seed: int) -> None:
    """Descend for `steps` steps, reporting to `trajectory`.

    With a validation part, the point kept is the best that the judge has seen: at the start, every `evaluate_every` steps and at the end.
    A minibatch is far too noisy to choose by. The search ends early after `patience` judgements without a better one. Without a
    validation part the last point is kept, as in the paper. What it needs to go on after a kill, to the same bits, is kept in `trajectory`.
    """
    settings = problem.settings
    draws = Draws(problem.tasks, settings.batch_size, seed, single=settings.batches == "single")
    problem.measure_references(
        Draws(problem.tasks, settings.batch_size, seed, single=draws.single).fixed(REFERENCE_RECORDS)
    )
    every = settings.evaluate_every or max(1, settings.steps // 20)
    parameters = problem.start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([parameters], lr=settings.learning_rate)
    first, waited = 1, 0
    if kept := trajectory.kept.get("sgd"):
        parameters.data.copy_(kept["parameters"])
        optimizer.load_state_dict(kept["optimizer"])
        draws.restore(kept["draws"])
        restore_random(kept["random"])
        problem.live.embedded = kept["texts"]
        first, waited = kept["step"] + 1, kept["waited"]
    with progress("positioning", settings.steps) as bar:
        bar.advance(first - 1)
        if judge and first == 1:
            problem.live.place(problem.table(parameters.detach()))
            trajectory.judge(0, parameters, judge.measure(problem.live))
        for step in range(first, settings.steps + 1):
            if settings.patience and waited >= settings.patience:
                return
            losses, gradient = problem.gradient(parameters, draws.next())
            coefficients = problem.mean_coefficients(parameters.detach()).tolist()
            trajectory.step(step, losses, coefficients, gradient_norm=float(gradient.norm()))
            parameters.grad = gradient
            optimizer.step()
            parameters.data.copy_(problem.admissible(parameters.data))
            bar.advance(loss=sum(losses.values()) / len(losses))
            if judge is None:
                trajectory.latest(step, parameters, losses)
            elif step % every == 0 or step == settings.steps:
                problem.live.place(problem.table(parameters.detach()))
                judgement = judge.measure(problem.live)
                waited = 0 if trajectory.judge(step, parameters, judgement) else waited + 1
                bar.advance(0, validation=judgement.value)
            trajectory.keep(
                sparing=True,
                sgd={
                    "step": step, "waited": waited, "parameters": parameters.detach(), "optimizer": optimizer.state_dict(),
                    "draws": draws.state(), "random": random_state(), "texts": problem.live.embedded,
                },
            )  # fmt: skip


def random_state() -> dict[str, torch.Tensor]:
    """Where torch's own generators are, which dropout draws from."""
    return {"cpu": torch.get_rng_state()} | (
        {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    )


def restore_random(state: Mapping[str, torch.Tensor]) -> None:
    """Set torch's generators back to `state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
