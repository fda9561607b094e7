"""`selfpos cluster`: many data sets parted into tasks."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.sources import WORDS


@click.command("cluster", epilog=WORDS)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option(
    "--base", help="Model folder or Hub name that embeds [default: the recipe's, else all-MiniLM-L6-v2]."
)
@click.option(
    "--data-root",
    type=click.Path(path_type=Path),
    help="Folder below which a recipe's tasks read what their field `local` names.",
)
@click.option(
    "-k",
    "counts",
    multiple=True,
    type=click.IntRange(min=2),
    help="Number of clusters; may be repeated [default: 2, 3 and 4].",
)
@click.option(
    "--samples",
    type=click.IntRange(min=2),
    default=100,
    show_default=True,
    help="Pairs of texts embedded of each data set.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder for a recipe of each partition; must not exist."
)
@click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True)
def command(
    sources: tuple[str, ...],
    base: str | None,
    data_root: Path | None,
    counts: tuple[int, ...],
    samples: int,
    out: Path | None,
    seed: int,
) -> None:
    """Part the data sets of all SOURCEs into clusters, each of which can be one task: k-means of the mean embeddings of their texts."""
    from selfpos.analysis.partition import cluster_recipe, cluster_tasks, embed_sources, partition
    from selfpos.commands.sources import read_sources
    from selfpos.console import quiet_process, table_text
    from selfpos.data.sources import load_task
    from selfpos.errors import SelfposError
    from selfpos.recipe import MergeSettings, Recipe
    from selfpos.storage.atomic import fresh_folder, refuse_existing
    from selfpos.storage.locate import DEFAULT_MODEL, locate_model
    from selfpos.tasks import get_task

    quiet_process()
    if out is not None:
        refuse_existing(out)
    named, recipe = read_sources(sources)
    wanted = counts or tuple(count for count in (2, 3, 4) if count <= len(named))
    if len(named) < max(wanted, default=2):
        raise SelfposError(
            f"{len(named)} data sets cannot be parted into {max(wanted, default=2)} clusters; name more data, or lower -k"
        )
    backbone = base or (recipe.base if recipe else DEFAULT_MODEL)
    folder = locate_model(backbone)
    loaded = {
        name: (get_task(source.type), load_task(source, seed=seed, data_root=data_root))
        for name, source in named.items()
    }
    vectors = embed_sources(
        folder,
        {name: (kind, found.dataset) for name, (kind, found) in loaded.items()},
        count=samples,
        seed=seed,
    )
    partitions = {count: partition(vectors, list(named), count, seed) for count in wanted}
    rows = [
        [
            name,
            named[name].type,
            f"{len(loaded[name][1].dataset):,}",
            *(str(_number(found.clusters, name)) for found in partitions.values()),
        ]
        for name in named
    ]
    click.echo(table_text(["data", "type", "records", *(f"cluster of {count}" for count in wanted)], rows))
    for count, found in partitions.items():
        clear = "" if found.silhouette is None else f", silhouette {found.silhouette:.3f}"
        click.echo(
            f"{count} clusters: {', '.join(str(len(group)) for group in found.clusters)} data sets{clear}"
        )
    if out is None:
        return
    merges = {
        "average": MergeSettings(method="average"),
        "self-positioning": MergeSettings(method="self-positioning"),
    }
    whole = recipe or Recipe(name="clustered", base=backbone, tasks=named, merges=merges)
    with fresh_folder(out) as fresh:
        for count, found in partitions.items():
            tasks = cluster_tasks(found.clusters, named, data_root)
            (fresh / f"{count}-clusters.yaml").write_text(
                cluster_recipe(whole, tasks, count), encoding="utf-8"
            )
    click.echo(f"recipes: {', '.join(str(out / f'{count}-clusters.yaml') for count in partitions)}")


def _number(clusters: list[list[str]], name: str) -> int:
    return next(number for number, group in enumerate(clusters, start=1) if name in group)
