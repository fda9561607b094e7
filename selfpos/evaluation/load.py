"""Loading a model to be scored; models that would load and score nonsense are refused with the reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sentence_transformers

from selfpos.errors import SelfposError
from selfpos.storage.adapter_settings import check_adapter_settings
from selfpos.storage.file_kinds import ADAPTER, VOCABULARIES
from selfpos.storage.inside import refuse_links_out
from selfpos.storage.loading import check_settings, loading
from selfpos.storage.manifest import read_json
from selfpos.storage.model_class import EMBEDDER, RERANKER, check_embeds, check_one_output, check_works
from selfpos.storage.model_folder import has_tokenizer, read_modules, refuse_pickles, stored_tensors


def load_model(folder: Path, kind: str = EMBEDDER) -> Any:
    """The model in `folder` in the class `kind` of sentence-transformers, after it has embedded texts, or
    scored pairs of them.

    Raises SelfposError when it is of another class or has no tokenizer, the base of its adapter is missing,
    a file is incomplete, parts do not fit together, what it gives is not finite, or, of a reranker, it gives
    several numbers for a pair.
    """
    if kind == EMBEDDER:
        check_embeds(folder)
    modules = read_modules(folder, plain=kind != EMBEDDER)
    base, first = adapter_base(folder), modules[0]
    with_vocabulary = has_tokenizer(folder / first.path) or (base is not None and has_tokenizer(base))
    if first.kind == "Transformer" and not with_vocabulary:
        raise SelfposError(
            f"{folder / first.path} has no tokenizer (none of {', '.join(VOCABULARIES[:4])}…): "
            "copy it from the model's base"
        )
    for path in (folder, *([base] if base else [])):
        refuse_links_out(path)
        refuse_pickles(path)
        check_settings(path, read_modules(path, plain=True))
    if base and (file := _adapter_file(folder)):
        check_adapter_settings(file, stored_tensors(base))
    with loading(folder):
        model = getattr(sentence_transformers, kind)(str(folder), local_files_only=True)
    if kind == RERANKER:
        check_one_output(folder, model)
    check_works(folder, model)
    return model


def adapter_base(folder: Path) -> Path | None:
    """The folder of the base of the adapter in `folder`, None without adapter.

    Raises SelfposError when the adapter does not name it, or it is not here.
    """
    file = _adapter_file(folder)
    if file is None:
        return None
    name = read_json(file).get("base_model_name_or_path")
    if not name:
        raise SelfposError(
            f"{file} does not say what base its adapter was trained on (base_model_name_or_path)"
        )
    base = Path(str(name)).expanduser()
    if base.is_dir():
        return base
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(name), local_files_only=True))
    except Exception:
        raise SelfposError(
            f"{folder} is an adapter of {name}, which is neither a folder here nor a downloaded model: "
            f"put the base there, or write its path into {file}"
        ) from None


def _adapter_file(folder: Path) -> Path | None:
    modules = read_modules(folder, plain=True)
    folders = [folder, *(folder / module.path for module in modules if module.path)]
    return next((path / ADAPTER for path in folders if (path / ADAPTER).is_file()), None)
