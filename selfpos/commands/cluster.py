"""`selfpos cluster`: many data sets grouped into tasks."""

from __future__ import annotations

from pathlib import Path

import click

from selfpos.commands.options import PATH, WORDS, examples


@click.command(
    "cluster",
    epilog=examples(
        "cluster english",
        "cluster sts=pairs.jsonl retrieval=questions.jsonl --out recipes/clustered",
        before=WORDS,
    ),
)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE…")
@click.option("--base", help="Model that embeds [default: the recipe's, else all-MiniLM-L6-v2].")
@click.option("--data-root", type=PATH, help="Local copies of a recipe's data sets.")
@click.option(
    "-k",
    "counts",
    multiple=True,
    type=click.IntRange(min=2),
    help="Clusters; may be repeated [default: 2, 3 and 4].",
)
@click.option(
    "--samples",
    type=click.IntRange(min=2),
    default=100,
    show_default=True,
    help="Pairs embedded of each data set.",
)
@click.option("--out", type=PATH, help="Folder for a recipe of each partition; must not exist.")
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
    """Group the data sets of all SOURCEs into clusters, each of which can be one task.

    The groups are found by k-means of the mean embeddings of their texts.
    """
    from selfpos.analysis.partition import cluster_recipe, cluster_tasks, embed_sources, partition
    from selfpos.commands.options import read_sources
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
    most = max(wanted, default=2)
    if len(named) < most:
        raise SelfposError(f"{len(named)} data sets cannot form {most} clusters; name more data, or lower -k")
    backbone = base or (recipe.base if recipe else DEFAULT_MODEL)
    folder = locate_model(backbone)
    data = {}
    for name, source in named.items():
        data[name] = (get_task(source.type), load_task(source, seed=seed, data_root=data_root).dataset)
    vectors = embed_sources(folder, data, count=samples, seed=seed)
    partitions = {count: partition(vectors, list(named), count, seed) for count in wanted}
    rows = []
    for name, (task_type, records) in data.items():
        numbers = []
        for made in partitions.values():
            numbers += [str(n) for n, names in enumerate(made.clusters, start=1) if name in names]
        rows.append([name, task_type.name, f"{len(records):,}", *numbers])
    click.echo(table_text(["data", "type", "records", *(f"cluster of {count}" for count in wanted)], rows))
    for count, made in partitions.items():
        silhouette = "" if made.silhouette is None else f", silhouette {made.silhouette:.3f}"
        sizes = ", ".join(str(len(group)) for group in made.clusters)
        click.echo(f"{count} clusters: {sizes} data sets{silhouette}")
    if out is None:
        return
    merges = {method: MergeSettings(method=method) for method in ("average", "self-positioning")}
    whole = recipe or Recipe(name="clustered", base=backbone, tasks=named, merges=merges)
    with fresh_folder(out) as fresh:
        for count, made in partitions.items():
            text = cluster_recipe(whole, cluster_tasks(made.clusters, named, data_root), count)
            (fresh / f"{count}-clusters.yaml").write_text(text, encoding="utf-8")
    click.echo(f"recipes: {', '.join(str(out / f'{count}-clusters.yaml') for count in partitions)}")
