"""Fields of configurations in which a model may differ from its base, with the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selfpos.storage.file_kinds import CONFIG
from selfpos.storage.manifest import read_json
from selfpos.storage.networks import ENCODERS, architectures, transformers_config, unreadable

SAVING = "says how the model was made, named or saved"
TRAINING = "acts in training only"
OUTPUTS = "says what is returned besides"
OVERRIDDEN = "the tokenizer's is used"
DERIVED = "follows from the weights"
HARMLESS = {
    **dict.fromkeys(
        ("_name_or_path", "name_or_path", "architectures", "transformers_version", "auto_map", "version",
         "_commit_hash", "model_name", "finetuning_task", "task_specific_params"), SAVING),
    **dict.fromkeys(
        ("dtype", "torch_dtype", "use_cache", "torchscript", "chunk_size_feed_forward", "reference_compile",
         "_attn_implementation", "_attn_implementation_autoset", "_attn_implementation_internal",
         "attn_implementation", "use_memory_efficient_attention", "unpad_inputs", "use_flash_attn",
         "gradient_checkpointing", "repad_logits_with_grad", "deterministic_flash_attn", "fused_bias_fc",
         "fused_dropout_add_ln", "use_xentropy", "pad_vocab_size_multiple"),
        "says how it is computed, not what"),
    **dict.fromkeys(
        ("initializer_range", "initializer_factor", "initializer_cutoff_factor", "init_std",
         "attention_probs_dropout_prob", "hidden_dropout_prob", "dropout", "attention_dropout",
         "activation_dropout", "classifier_dropout", "embd_pdrop", "attn_pdrop", "dropout_rate",
         "embedding_dropout", "mlp_dropout", "hidden_dropout", "resid_pdrop", "seq_classif_dropout",
         "qa_dropout", "sparse_prediction", "sparse_pred_ignore_index", "router_aux_loss_coef",
         "keys_to_ignore_at_inference", "problem_type", "loss_type", "layerdrop"), TRAINING),
    **dict.fromkeys(("output_attentions", "output_hidden_states", "return_dict"), OUTPUTS),
    **dict.fromkeys(("label2id", "num_labels"), "follows from id2label"),
    **dict.fromkeys(("vocab_size", "tie_word_embeddings", "embedding_dimension"), DERIVED),
}  # fmt: skip
"""Fields that change nothing of what is computed → why."""
TOKEN_IDS = {
    f"{name}_token_id": OVERRIDDEN
    for name in ("bos", "eos", "pad", "cls", "sep", "unk", "mask", "decoder_start", "image", "forced_eos")
}
"""Fields with a token's number; harmless but where `_token_id_counts` says otherwise."""
UNWRITTEN = {
    "is_decoder": False,
    "add_cross_attention": False,
    "is_causal": True,
    "include_prompt": True,
    "use_residual": False,
}
"""Fields of transformers and of other modules → what they are where they are not written."""
NULL_COUNTS = ("keep_only_token_ids",)
"""Fields of other modules than transformers in which null is a value of its own: here, all tokens."""
UNORDERED = ("skiplist_words", "skiplist_tasks", "keep_only_token_ids")
"""Fields that list what a MultiVectorMask drops or keeps, in any order."""
POSITIONS_FROM_PADDING = (
    *("roberta", "mpnet", "camembert", "xmod", "longformer", "data2vec-text", "jina", "luke", "esm", "ibert"),
    *("altclip", "lilt", "markuplm", "layoutlmv3", "m2m_100"),
)
"""Parts of types of models whose positions are counted from the number of the padding token."""


def field_differences(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], folders: tuple[Path, Path] | None = None
) -> list[tuple[str, Any, Any]]:
    """The fields that change what is computed: name, the base's value, the other's.

    With the folders of two transformers, transformers reads the configurations, and so knows the values of
    fields that are not written; without, only fields of both are compared, and null mostly says nothing.
    """
    if folders is None:
        differences = _differences(mine, theirs, shared_only=True)
        return [each for each in differences if each[0] in NULL_COUNTS or None not in each[1:]]
    if not _differences(mine, theirs, shared_only=False):
        return []
    first, second = (_as_transformers_reads(folder) for folder in folders)
    if first is None or second is None:
        return _differences(mine, theirs, shared_only=True)
    return _differences(first, second, shared_only=True)


def _differences(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], *, shared_only: bool
) -> list[tuple[str, Any, Any]]:
    names = mine.keys() | theirs.keys()
    if shared_only:
        names = {name for name in names if name in UNWRITTEN or (name in mine and name in theirs)}
    differences = []
    for name in sorted(names - HARMLESS.keys()):
        first, second = (side.get(name, UNWRITTEN.get(name)) for side in (mine, theirs))
        if first == second or _equal_by_rule(name, mine, theirs):
            continue
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            inner = _differences(first, second, shared_only=shared_only)
            differences += [(f"{name}.{field}", a, b) for field, a, b in inner]
        else:
            differences.append((name, first, second))
    return differences


def _equal_by_rule(name: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether unlike values of one field mean the same."""
    if name in TOKEN_IDS:
        return not _token_id_counts(name, mine)
    if name == "id2label":  # other names do no harm, but the same ones for other rows do
        names = [side.get(name) or {} for side in (mine, theirs)]
        if not all(isinstance(side, Mapping) for side in names):
            return False
        labels = [[str(label).lower() for label in side.values()] for side in names]
        return labels[0] == labels[1] or sorted(labels[0]) != sorted(labels[1])
    if name in UNORDERED:
        first, second = mine.get(name), theirs.get(name)
        if not (isinstance(first, list) and isinstance(second, list)):
            return False
        return sorted(map(str, first)) == sorted(map(str, second))
    if name == "is_encoder_decoder":  # of these the encoder alone is loaded
        return str(mine.get("model_type")) in ENCODERS
    if name == "sliding_window" and mine.get("use_bidirectional_attention"):
        # transformers 4.56 read n as n // 2 + 1 on both sides of a token, and wrote that back on saving
        wide = [size for side in (mine, theirs) if isinstance(size := side.get(name), int)]
        return len(wide) == 2 and min(wide) == max(wide) // 2 + 1
    return False


def _token_id_counts(name: str, config: Mapping[str, Any]) -> bool:
    """Whether the number of a token in config.json takes part in what is computed."""
    kind = str(config.get("model_type", ""))
    classifies = any("ForSequenceClassification" in name for name in architectures(config))
    if name == "pad_token_id":  # decoders that classify look for the last token before the padding
        decodes = "num_key_value_heads" in config or "gpt" in kind
        return any(part in kind for part in POSITIONS_FROM_PADDING) or (classifies and decodes)
    if name == "eos_token_id":
        by_end = any(part in kind for part in ("bart", "t5", "mvp", "pegasus"))  # a class from the last </s>
        return "clip" in kind or (classifies and by_end)
    return False


def _as_transformers_reads(folder: Path) -> dict[str, Any] | None:
    """config.json with the defaults of its type, and only the fields that the type has; None if unknown."""
    config = transformers_config(folder)
    if config is None:
        return None
    try:
        fields = {*type(config)().to_dict(), *config.attribute_map, "rope_parameters", *UNWRITTEN}
    except unreadable():
        return None
    values = config.to_dict() | {"architectures": read_json(folder / CONFIG).get("architectures")}
    return {name: value for name, value in values.items() if name in fields}
