"""The landscape of a run: its models over the plane of two of its task vectors."""

from __future__ import annotations

from pathlib import Path

from selfpos.errors import SelfposError
from selfpos.recipe import load_recipe
from selfpos.storage.run_folder import RunFolder


def landscape_of_run(folder: RunFolder, pair: tuple[str, str], *, grid: int = 8, records: int = 24) -> Path:
    """Measure the probe loss over the plane of the vectors called `pair`, specialists or other models of the run; returns the file.

    An interrupted call goes on where it was. Raises SelfposError when `folder` is no run, its probe set is not there yet, or a name is not one of its models.
    """
    from selfpos.data.probe import read_probe
    from selfpos.positioning.landscape import measure_landscape
    from selfpos.storage.locate import locate_model

    if not folder.recipe.is_file():
        raise SelfposError(f"{folder.path} is no run: it has no {folder.recipe.name}")
    recipe = load_recipe(folder.recipe)
    places = {
        **{task: folder.specialist(task) for task in recipe.tasks},
        **{name: folder.rival(name) for name in recipe.joints},
    }
    places |= {name: folder.merged(name) for name in recipe.merges}
    models = {name: place for name, place in places.items() if place.is_dir()}
    if not folder.probe.is_dir():
        raise SelfposError(f"the run {folder.path} has no probe set yet; let it go on with `selfpos run`")
    return measure_landscape(
        locate_model(recipe.base),
        models,
        pair,
        read_probe(folder.probe),
        folder.landscapes / f"{pair[0]}+{pair[1]}.json",
        grid=grid,
        records=records,
        max_length=recipe.training.max_length or 64,
        seed=recipe.seed,
    )
