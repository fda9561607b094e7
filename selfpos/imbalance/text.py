"""The same grid on texts: a linear head on an encoder's embeddings, or the encoder fine-tuned with it.

Embeddings are maps of one pixel, scaled so that a coordinate has a variance of about one. For a fine-tuned
encoder the trunk is the encoder, and an "image" is a row of tokens.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kendalltau
from torch import Tensor, nn

from selfpos.console import progress
from selfpos.data.hub import answers_of_hub, commit_of, hub_address
from selfpos.errors import SelfposError
from selfpos.imbalance.study import sampling
from selfpos.imbalance.study.analysis import Step, Study, Values, average, common_means, kendall, shared_seeds
from selfpos.imbalance.study.claims import NOT_RUN, check_claims
from selfpos.imbalance.study.data import ArrayImages, ImageData
from selfpos.imbalance.study.networks import Dense, Network, initialise, seeded
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.verdicts import SIGNIFICANT, Finding, Outcome, finding
from selfpos.storage.atomic import write_bytes
from selfpos.storage.locate import cache_folder, locate_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Labelled = list[tuple[str, str]]  # texts with their labels
ByMethod = dict[str, Values]
MAX_TOKENS = 64
HELD_OUT = 0.2  # of each class, as the test set of data that have a single split


class Encoder(nn.Module):
    """Tokens (B, 2, 1, L), ids and attention mask, → scaled embeddings (B, F, 1, 1)."""

    def __init__(self, model: SentenceTransformer, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, tokens: Tensor) -> Tensor:
        longest = int(tokens[:, 1, 0].sum(dim=1).max())
        ids, mask = (tokens[:, row, 0, :longest].long().contiguous() for row in (0, 1))
        output = self.model({"input_ids": ids, "attention_mask": mask})
        return self.scale * output["sentence_embedding"][:, :, None, None]


def read_texts(recipe: ImbalanceRecipe, source: str) -> ImageData:
    """Labelled texts (what `selfpos.data` reads as classification) as input of a head or of an encoder.

    Data with the split test alone give a fifth of each class to the test set.
    """
    from selfpos.evaluation.load import load_model
    from selfpos.storage.hashing import content_hash

    assert recipe.encoder is not None
    *parts, division = _divided(source)
    (train, train_names), (test, test_names) = (map(list, zip(*part, strict=True)) for part in parts)
    names = sorted(set(train_names))
    if unknown := sorted(set(test_names) - set(names)):
        raise SelfposError(
            f"{source}: the test texts have labels that the training texts lack: {', '.join(unknown[:5])}"
        )
    folder = locate_model(recipe.encoder)
    # The encoder's weights are part of the data of a head, and its name does not identify them.
    encoder = content_hash(folder)
    content = json.dumps([train, train_names, test, test_names, encoder])
    fingerprint = hashlib.sha256(content.encode()).hexdigest()
    model = load_model(folder)
    size = int(model.get_embedding_dimension() or 0)
    scale = size**0.5
    if recipe.network == "head":
        inputs = [scale * _embedded(model, encoder, texts)[..., None, None] for texts in (train, test)]
    else:
        inputs = _tokens(model, train, test)

    def network(seed: int) -> Network:
        layers = [] if recipe.network == "head" else [Encoder(copy.deepcopy(model), scale)]
        with seeded(seed):
            head = Dense(size, len(names))
            initialise(head)
        return Network(nn.Sequential(*layers), nn.Sequential(head))

    sets = []
    for values, labels in zip(inputs, (train_names, test_names), strict=True):
        sets.append(ArrayImages(torch.from_numpy(values), np.searchsorted(names, labels).astype(np.int64)))
    return ImageData(sets[0], sets[1], names, source, network, fingerprint, division)


def _divided(source: str) -> tuple[Labelled, Labelled, str]:
    """Training texts, test texts, and how they were divided, in words."""
    from selfpos.data.sources import load_source
    from selfpos.tasks import get_task

    def load(split: str) -> Labelled:
        dataset = load_source(source, get_task("classification"), split=split).dataset
        return list(zip(dataset["text"], map(str, dataset["label"]), strict=True))

    existing = _split_names(source)
    parts = [split for split in ("train", "validation") if split in existing]
    train = [record for split in parts for record in load(split)]
    test = load("test")
    if parts:
        return train, test, f"trained on {' and '.join(parts)}"
    ids = np.unique([label for _, label in test], return_inverse=True)[1].astype(np.int64)
    counts = np.rint(HELD_OUT * np.bincount(ids)).astype(np.int64)
    held_out = set(sampling.subset(sampling.class_permutations(ids, len(counts), 0), counts).tolist())
    train = [record for index, record in enumerate(test) if index not in held_out]
    test = [record for index, record in enumerate(test) if index in held_out]
    return train, test, f"a single split, {HELD_OUT:.0%} of each class held out as test"


def _split_names(source: str) -> set[str]:
    """The splits that `source` has; a single file, or a missing one, is a test set."""
    from selfpos.data import files

    splits = ("train", "validation", "test")
    if source == "corpus":
        return set(splits)
    address = hub_address(source)
    if address is not None:
        from datasets import get_dataset_split_names

        name, config, revision = address
        commit, connected = commit_of(name, revision)
        with answers_of_hub(name, "test", connected=connected):
            return set(get_dataset_split_names(name, config, revision=commit))
    path = Path(source).expanduser()
    if not path.is_dir():
        return {"test"}
    return {split for split in splits if files.find(path, split) is not None}


def _embedded(model: SentenceTransformer, content: str, texts: list[str]) -> NDArray[np.float32]:
    """Unit-length embeddings (n, F), from the cache if possible; `content` is the model's content hash.

    Without the cache each start would take minutes, even one that only shows the verdict again.
    """
    key = hashlib.sha256("\0".join([content, *texts]).encode()).hexdigest()[:24]
    file = cache_folder() / "imbalance" / f"{key}.npy"
    if file.is_file():
        return np.load(file, allow_pickle=False)
    parts, options = [], {"batch_size": 64, "normalize_embeddings": True, "show_progress_bar": False}
    with progress("embedding", len(texts), unit="texts") as bar:
        for start in range(0, len(texts), 512):
            batch = texts[start : start + 512]
            parts.append(model.encode(batch, **options))
            bar.advance(len(batch))
    embeddings = np.concatenate(parts).astype(np.float32)
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, embeddings)
    write_bytes(file, buffer.getvalue())
    return embeddings


def _tokens(model: SentenceTransformer, train: list[str], test: list[str]) -> list[NDArray[np.int32]]:
    """Ids and masks of both sets, (n, 2, 1, L), all of one length."""
    tokenizer: Any = model.tokenizer
    settings = {"truncation": True, "max_length": MAX_TOKENS, "padding": True, "return_tensors": "np"}
    encoded = tokenizer([*train, *test], **settings)
    tokens = np.stack([encoded["input_ids"], encoded["attention_mask"]], axis=1)[:, :, None]
    return np.split(tokens.astype(np.int32), [len(train)])


def outcome(study: Study, images: Study | None) -> Outcome:
    """The claims and the order of the methods on texts, and whether they are the same on images."""
    studies = [study] if images is None else [study, images]
    claims = [{claim.name: claim for claim in check_claims(part)} for part in studies]
    rows = [
        [f"{name}  {claim.sentence}", *(checked[name].summary for checked in claims)]
        for name, claim in claims[0].items()
    ]
    # Ratios differ between data sets of different sizes, so means are what can be compared.
    shared = [_shared_steps(part) for part in studies]
    ratios = [", ".join(f"{rho:g}" for rho in sorted({step.rho for step in steps})) for steps, _ in shared]
    rows.append(["ratios ρ of the step settings, over which the means are taken", *ratios])
    aucs: list[ByMethod] = [
        {method: average(step.get(method) for step in steps) for method in methods if steps}
        for steps, methods in shared
    ]
    means = [common_means(by_method, sorted(by_method)) for by_method in aucs]
    for method in sorted(means[0], key=lambda name: -means[0][name]):
        cells = [f"{values[method]:.2f}" if method in values else "–" for values in means]
        rows.append([f"mean AUC × 100 of {method} over the step settings", *cells])
    findings: list[Finding] = []
    if images is not None:
        verdicts = [{name: claim.verdict for name, claim in checked.items()} for checked in claims]
        findings = [_order_carries_over(*aucs), _claims_carry_over(*verdicts)]
    else:
        rows = [[*row, "–"] for row in rows]
    return Outcome(
        "The order of the methods on texts and on images",
        "Kendall's τ between the two orders is not above 0, or a claim that holds on images does not hold "
        "on texts",
        ["claim or method", "texts", "images"],
        rows,
        findings,
    )


def _claims_carry_over(ours: dict[str, str], theirs: dict[str, str]) -> Finding:
    """Whether the claims that hold on images, and were run on texts, hold there too."""
    held_on_images = [
        name for name, verdict in theirs.items() if verdict == "holds" and ours[name] != NOT_RUN
    ]
    verdicts = {ours[name] for name in held_on_images}
    verdict = "not decided"
    if "does not hold" in verdicts:
        verdict = "does not hold"
    elif verdicts == {"holds"}:
        verdict = "holds"
    value = ", ".join(f"{name} {ours[name]}" for name in held_on_images) or "none"
    return Finding("the claims that hold on images, where run, hold on texts", value, verdict)


def _order_carries_over(ours: ByMethod, theirs: ByMethod) -> Finding:
    """Kendall's τ-b of the text study's order, by seed, with the images' mean order; and p of both means.

    Few methods are in any order by chance, the same at every seed. So the exact one-sided permutation test of
    the two mean orders must be significant too; it has no p where two methods are level.
    """
    shared = sorted(set(ours) & set(theirs))
    claim = (
        "the order of the methods by AUC carries over (Kendall's τ, seed by seed, above 0, and p < "
        f"{SIGNIFICANT} of the mean orders of {len(shared)} methods, exact and one-sided)"
    )
    here, there = (list(common_means(aucs, shared).values()) for aucs in (ours, theirs))
    if len(shared) < 3 or not here or not there:
        return Finding(claim, "nothing to compare", "not decided")
    seeds = shared_seeds(ours[method] for method in shared)
    taus = [kendall([ours[method][seed] for method in shared], there) for seed in seeds]
    p = float("nan")
    if len(set(here)) == len(here) and len(set(there)) == len(there):
        p = float(kendalltau(here, there, alternative="greater", method="exact").pvalue)
    return finding(claim, taus, p=p)


def _shared_steps(study: Study) -> tuple[list[Step], list[str]]:
    """The step settings at which all methods ran (without partial samplings and our control), and these."""
    steps = study.steps()
    names = [name for name in study.methods() if ":" not in name and name != "size-matched"]
    methods = [name for name in names if any(step.get(name) for step in steps)]
    return [step for step in steps if all(step.get(name) for name in methods)], methods
