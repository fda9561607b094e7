"""The same grid on texts: a linear head on an encoder's embeddings, or the encoder fine-tuned with it.

Does the order of the methods carry over?

Texts take the place of images: their embeddings are maps of one pixel, scaled so that a coordinate has a
variance of about one, and all of the study's methods, metrics and claims work on them as they are. Of a
fine-tuned encoder the trunk is the encoder, an "image" a row of tokens.
"""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from selfpos.console import progress
from selfpos.errors import OperationError, SelfposError
from selfpos.imbalance.carryover.outcome import SIGNIFICANT, Finding, Judgement, Outcome
from selfpos.imbalance.study import profiles
from selfpos.imbalance.study.analysis import Study, average, paired_bootstrap
from selfpos.imbalance.study.claims import NOT_RUN, check_claims, step_cells
from selfpos.imbalance.study.images import ArrayImages
from selfpos.imbalance.study.networks import Network, caffe_xavier
from selfpos.imbalance.study.recipe import ImbalanceRecipe
from selfpos.imbalance.study.sources import ImageData, read_images
from selfpos.imbalance.study.wide import Dense

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Ints = NDArray[np.int64]
ByMethod = dict[str, dict[int, float]]  # method → seed → value
MAX_TOKENS = 64
HELD_OUT = 0.2  # of each class, as the test set of data that have a single split


class Encoder(nn.Module):
    """Tokens (B, 2, 1, L), ids and attention mask, → scaled embeddings (B, F, 1, 1)."""

    def __init__(self, model: SentenceTransformer, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, tokens: Tensor) -> Tensor:
        ids, mask = tokens[:, 0, 0].long(), tokens[:, 1, 0].long()
        longest = int(mask.sum(dim=1).max())
        found = self.model(
            {"input_ids": ids[:, :longest].contiguous(), "attention_mask": mask[:, :longest].contiguous()}
        )
        return self.scale * found["sentence_embedding"][:, :, None, None]


def open_data(recipe: ImbalanceRecipe, source: str | None) -> ImageData:
    """The images or texts of `recipe`, or those of `source` in their place."""
    place = source or recipe.data
    return (
        read_images(place, preprocessing=recipe.preprocessing)
        if recipe.encoder is None
        else read_texts(recipe, place)
    )


def read_texts(recipe: ImbalanceRecipe, source: str) -> ImageData:
    """Labelled texts (what `selfpos.data` reads as classification) as input of a head or of an encoder.

    Training texts are those of the splits train and validation; data with the split test alone give a fifth
    of each class to the test set. Embeddings are kept in the project's cache. Raises SelfposError when there
    are no texts or no model.
    """
    from selfpos.evaluation.load import load_model
    from selfpos.storage.hashing import content_hash
    from selfpos.storage.locate import locate_model

    assert recipe.encoder is not None
    (train, train_names), (test, test_names), told = _splits(source)
    names = sorted(set(train_names))
    if strange := sorted(set(test_names) - set(names)):
        raise SelfposError(
            f"{source}: the test texts have labels that the training texts lack: {', '.join(strange[:5])}"
        )
    number = {name: place for place, name in enumerate(names)}
    labels = [np.array([number[name] for name in own], dtype=np.int64) for own in (train_names, test_names)]
    folder = locate_model(recipe.encoder)
    # The encoder's weights are as much the data of a head as the texts are, and its name does not tell them.
    encoder = content_hash(folder)
    fingerprint = hashlib.sha256(
        json.dumps([train, train_names, test, test_names, encoder]).encode()
    ).hexdigest()
    model = load_model(folder)
    size = int(model.get_embedding_dimension() or 0)
    scale = size**0.5
    if recipe.network == "head":
        inputs = [scale * _embedded(model, encoder, texts)[..., None, None] for texts in (train, test)]
    else:
        inputs = list(_tokens(model, train, test))

    def network(seed: int) -> Network:
        trunk = (
            nn.Sequential()
            if recipe.network == "head"
            else nn.Sequential(Encoder(copy.deepcopy(model), scale))
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = Dense(size, len(names))
            caffe_xavier(head)
        return Network(trunk, nn.Sequential(head))

    sets = [ArrayImages(torch.from_numpy(own), these) for own, these in zip(inputs, labels, strict=True)]
    return ImageData(sets[0], sets[1], names, source, network, fingerprint=fingerprint, division=told)


def _splits(source: str) -> tuple[tuple[list[str], list[str]], tuple[list[str], list[str]], str]:
    from selfpos.data.sources import load_source
    from selfpos.tasks import get_task

    def load(split: str) -> tuple[list[str], list[str]]:
        found = load_source(source, get_task("classification"), split=split).dataset
        return list(found["text"]), [str(label) for label in found["label"]]

    there = {split: load(split) for split in ("train", "validation") if split in _split_names(source)}
    texts, labels = load("test")
    if there:
        joined = [sum((part[side] for part in there.values()), start=list[str]()) for side in (0, 1)]
        return (joined[0], joined[1]), (texts, labels), f"trained on {' and '.join(there)}"
    ids = np.unique(labels, return_inverse=True)[1].astype(np.int64)
    counts = np.rint(HELD_OUT * np.bincount(ids)).astype(np.int64)
    test = set(profiles.subset(profiles.class_permutations(ids, len(counts), 0), counts).tolist())
    parts = [[place for place in range(len(texts)) if (place in test) is held] for held in (False, True)]
    train, held_out = (([texts[i] for i in part], [labels[i] for i in part]) for part in parts)
    return train, held_out, f"a single split, {HELD_OUT:.0%} of each class held out as test"


def _split_names(source: str) -> set[str]:
    """The splits that `source` has.

    A single file is a test set; so is what is nowhere, as reading it will say.
    """
    from selfpos.data import files

    if source == "corpus":
        return {"train", "validation", "test"}
    if source.startswith("hub:"):
        from datasets import get_dataset_split_names

        name, _, revision = source.removeprefix("hub:").partition("@")
        name, _, config = name.partition(":")
        try:
            return set(get_dataset_split_names(name, config or None, revision=revision or None))
        except (OSError, ValueError, KeyError) as error:
            raise OperationError(
                f"the Hugging Face Hub did not tell the splits of data set {name}: "
                f"{' '.join(str(error).split())}"
            ) from None
    path = Path(source).expanduser()
    return (
        {split for split in ("train", "validation", "test") if files.find(path, split) is not None}
        if path.is_dir()
        else {"test"}
    )


def _embedded(model: SentenceTransformer, content: str, texts: list[str]) -> NDArray[np.float32]:
    """Unit-length embeddings (n, F), from the cache where they are there; `content` is the model's content
    hash.
    """
    import io

    from selfpos.storage.atomic import write_bytes
    from selfpos.storage.locate import cache_folder

    key = hashlib.sha256("\0".join([content, *texts]).encode()).hexdigest()[:24]
    file = cache_folder() / "imbalance" / f"{key}.npy"
    if file.is_file():
        return np.load(file, allow_pickle=False)
    parts = []
    with progress("embedding", len(texts), unit="texts") as bar:
        for start in range(0, len(texts), 512):
            parts.append(
                model.encode(
                    texts[start : start + 512],
                    batch_size=64,
                    normalize_embeddings=True,
                    show_progress_bar=False,
                )
            )
            bar.advance(len(parts[-1]))
    found = np.concatenate(parts).astype(np.float32)
    file.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, found)
    write_bytes(file, buffer.getvalue())
    return found


def _tokens(model: SentenceTransformer, *sets: list[str]) -> list[NDArray[np.int32]]:
    """Ids and masks of each set, (n, 2, 1, L), all of one length."""
    tokenizer: Any = model.tokenizer
    lists = [tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"] for texts in sets]
    longest = max(len(ids) for own in lists for ids in own)
    found = []
    for own in lists:
        tokens = np.zeros((len(own), 2, 1, longest), dtype=np.int32)
        for row, ids in enumerate(own):
            tokens[row, 0, 0, : len(ids)], tokens[row, 1, 0, : len(ids)] = ids, 1
        found.append(tokens)
    return found


def outcome(study: Study, images: Study | None) -> Outcome:
    """The claims on texts, and, beside a study of images, whether they and the order of the methods are the
    same there.
    """
    claims = check_claims(study)
    there = {claim.name: claim for claim in check_claims(images)} if images is not None else {}
    rows = [
        [
            f"{claim.name}  {claim.sentence}",
            claim.told,
            there[claim.name].told if claim.name in there else "–",
        ]
        for claim in claims
    ]
    ours, theirs = _by_method(study), {} if images is None else _by_method(images)
    rows.append(
        [
            "ratios ρ of the step settings, over which the means are taken",
            _ratios(study),
            "–" if images is None else _ratios(images),
        ]
    )
    means = [_means(of, sorted(of)) for of in (ours, theirs)]
    for method in sorted(means[0], key=lambda name: -means[0][name]):
        told = [f"{of[method]:.2f}" if method in of else "–" for of in means]
        rows.append([f"mean AUC × 100 of {method} over the step settings", *told])
    findings: list[Finding | Judgement] = []
    if images is not None:
        findings.append(_order_carries_over(ours, theirs))
        findings.append(
            _claims_carry_over(
                *({claim.name: claim.verdict for claim in own} for own in (claims, there.values()))
            )
        )
    return Outcome(
        "The order of the methods on texts and on images",
        "Kendall's τ between the two orders is not above 0, or a claim that holds on images does not hold "
        "on texts",
        ["claim or method", "texts", "images"],
        rows,
        findings,
    )


def _claims_carry_over(ours: dict[str, str], theirs: dict[str, str]) -> Judgement:
    """Of the claims that hold on images and were run on texts: all hold, one does not, or some are undecided."""
    shared = {
        name: ours[name] for name, verdict in theirs.items() if verdict == "holds" and ours[name] != NOT_RUN
    }
    found = set(shared.values())
    verdict = (
        "does not hold" if "does not hold" in found else "holds" if found == {"holds"} else "not decided"
    )
    told = ", ".join(f"{name} {verdict}" for name, verdict in shared.items())
    return Judgement("the claims that hold on images, where run, hold on texts", told or "none", verdict)


def _order_carries_over(ours: ByMethod, theirs: ByMethod) -> Finding | Judgement:
    """Kendall's τ-b by seed of the text study, its methods' AUC over the step settings against the images'
    means; and p of the mean orders.

    Seeds repeat the training, not the methods: few methods are in any order by chance, the same at every
    seed. So the exact one-sided permutation test of the two mean orders must be significant too; it has no p
    where two methods are level.
    """
    from scipy.stats import kendalltau

    shared = sorted(set(ours) & set(theirs))
    claim = (
        "the order of the methods by AUC carries over (Kendall's τ, seed by seed, above 0, and p < "
        f"{SIGNIFICANT} of the mean orders of {len(shared)} methods, exact and one-sided)"
    )
    here, there = (list(_means(of, shared).values()) for of in (ours, theirs))
    if len(shared) < 3 or not here or not there:
        return Judgement(claim, "nothing to compare", "not decided")
    seeds = sorted(set.intersection(*(set(ours[method]) for method in shared)))
    taus = [float(kendalltau([ours[method][seed] for method in shared], there).statistic) for seed in seeds]
    level = len(set(here)) < len(here) or len(set(there)) < len(there)
    p = (
        float("nan")
        if level
        else float(kendalltau(here, there, alternative="greater", method="exact").pvalue)
    )
    return Finding(claim, paired_bootstrap(taus), p=p)


def _means(of: ByMethod, methods: list[str]) -> dict[str, float]:
    """The mean of each of `methods` over the seeds that all of them have; empty where they share none."""
    seeds = set.intersection(*(set(of[method]) for method in methods)) if methods else set()
    return {
        method: float(np.mean([of[method][seed] for seed in sorted(seeds)])) for method in methods if seeds
    }


def _ratios(study: Study) -> str:
    return ", ".join(f"{rho:g}" for rho in sorted({rho for rho, _ in _shared_cells(study, _methods(study))}))


def _by_method(study: Study) -> ByMethod:
    """AUC × 100.

    Ratios differ between data sets of different sizes: the mean over the step settings at which all methods
    were run is what can be compared.
    """
    methods = _methods(study)
    shared = _shared_cells(study, methods)
    return {
        method: average(study.get("step", *cell, method) for cell in shared) for method in methods if shared
    }


def _methods(study: Study) -> list[str]:
    """Those run at any step setting, without partial samplings and our control."""
    names = [name for name in study.methods() if ":" not in name and name != "size-matched"]
    return [name for name in names if any(study.get("step", *cell, name) for cell in step_cells(study))]


def _shared_cells(study: Study, methods: list[str]) -> list[tuple[float, float]]:
    return [cell for cell in step_cells(study) if all(study.get("step", *cell, method) for method in methods)]
