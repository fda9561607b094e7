"""Tiny random models of the architectures that people embed, score and search with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentence_transformers as st
import transformers as T
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer import modules as embedding
from sentence_transformers.sparse_encoder.modules import SpladePooling
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [*SPECIAL, *(chr(97 + i) for i in range(26)), *(f"w{i}" for i in range(69))]
SIZE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}
DECODER = {**SIZE, "num_key_value_heads": 2, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
MODERN = {**SIZE, "cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
MASKED, CAUSAL, GENERATES = "ForMaskedLM", "ForCausalLM", "ForConditionalGeneration"
T5 = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
DISTIL = {"vocab_size": 100, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
DEBERTA = {**SIZE, "relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}


@dataclass(frozen=True)
class Architecture:
    """How a base is made in a folder, and the class of sentence-transformers that loads it."""

    build: Callable[[Path], Any]
    loads: type[Any] = st.SentenceTransformer
    pretrained: str | None = None
    """The class of transformers with the head that it was pretrained with."""

    def make(self, folder: Path) -> Path:
        """Save the base to `folder`."""
        self.build(folder.with_name("plain")).save_pretrained(str(folder))
        return folder

    def load(self, folder: Path) -> Any:
        """The model at `folder`."""
        return self.loads(str(folder), device="cpu")


def fast_tokenizer() -> Tokenizer:
    """Words of one or two letters, with BERT's special tokens."""
    made = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return made


def wrapped_tokenizer() -> Any:
    """The same for transformers."""
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    special = dict(zip(names, SPECIAL, strict=True))
    return T.PreTrainedTokenizerFast(tokenizer_object=fast_tokenizer(), model_max_length=64, **special)


def plain(folder: Path, model: str, config: str, **fields: Any) -> str:
    """A random model of transformers, saved by it."""
    getattr(T, model)(getattr(T, config)(**fields)).save_pretrained(folder)
    wrapped_tokenizer().save_pretrained(folder)
    return str(folder)


def encoder(
    model: str, config: str, fields: dict[str, Any], pooling: str = "mean", head: str | None = None
) -> Architecture:
    """A SentenceTransformer with pooling, a Dense module and prompts."""

    def build(folder: Path) -> Any:
        body = Transformer(plain(folder, model, config, **fields))
        width = body.get_embedding_dimension()
        modules = [body, embedding.Pooling(width, pooling), embedding.Dense(width, 8), embedding.Normalize()]
        return st.SentenceTransformer(modules=modules, prompts={"query": "a "}, device="cpu")

    return Architecture(
        build, pretrained=head and model.removesuffix("EncoderModel").removesuffix("Model") + head
    )


def static(folder: Path) -> Any:
    """A table of tokens and nothing else, as model2vec's."""
    module = embedding.StaticEmbedding(fast_tokenizer(), embedding_dim=16)
    return st.SentenceTransformer(modules=[module], device="cpu")


def splade(folder: Path) -> Any:
    """A masked language model whose logits are pooled."""
    body = Transformer(plain(folder, "BertForMaskedLM", "BertConfig", **SIZE), transformer_task="fill-mask")
    return st.SparseEncoder(modules=[body, SpladePooling()], device="cpu")


def colbert(folder: Path) -> Any:
    """A vector per token."""
    return st.MultiVectorEncoder(plain(folder, "BertModel", "BertConfig", **SIZE), device="cpu")


def cross_encoder(folder: Path) -> Any:
    """A score per pair."""
    return st.CrossEncoder(
        plain(folder, "BertForSequenceClassification", "BertConfig", **SIZE, num_labels=1), device="cpu"
    )


def router(folder: Path) -> Any:
    """A table for queries, a transformer for documents."""
    body = Transformer(plain(folder, "BertModel", "BertConfig", **SIZE))
    table = embedding.StaticEmbedding(fast_tokenizer(), embedding_dim=32)
    routed = Router.for_query_document([table], [body, embedding.Pooling(32)])
    return st.SentenceTransformer(modules=[routed, embedding.Normalize()], device="cpu")


def clip(folder: Path) -> Any:
    """Texts and images in one space."""
    text = {**SIZE, "eos_token_id": 3, "bos_token_id": 2, "projection_dim": 16}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 16, "patch_size": 8, "projection_dim": 16}
    config = T.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    T.CLIPModel(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    images = T.CLIPImageProcessor(size=size, crop_size=size)
    T.CLIPProcessor(images, wrapped_tokenizer()).save_pretrained(folder)
    return st.SentenceTransformer(modules=[Transformer(str(folder))], device="cpu")


ARCHITECTURES: dict[str, Architecture] = {
    "BERT": encoder("BertModel", "BertConfig", SIZE, head=MASKED),
    "RoBERTa": encoder("RobertaModel", "RobertaConfig", SIZE, head=MASKED),
    "XLM-R": encoder("XLMRobertaModel", "XLMRobertaConfig", SIZE, "cls", MASKED),
    "MPNet": encoder("MPNetModel", "MPNetConfig", SIZE, head=MASKED),
    "DistilBERT": encoder("DistilBertModel", "DistilBertConfig", DISTIL, head=MASKED),
    "DeBERTa-v2": encoder("DebertaV2Model", "DebertaV2Config", DEBERTA, head=MASKED),
    "ELECTRA": encoder(
        "ElectraModel", "ElectraConfig", {**SIZE, "embedding_size": 16}, head="ForPreTraining"
    ),
    "ModernBERT": encoder("ModernBertModel", "ModernBertConfig", MODERN, "cls", MASKED),
    "NomicBERT": encoder("NomicBertModel", "NomicBertConfig", SIZE, head=MASKED),
    "GTE-new": encoder("GteModel", "GteConfig", SIZE, "cls", MASKED),
    "jina-v3": encoder("JinaEmbeddingsV3Model", "JinaEmbeddingsV3Config", SIZE),
    "T5 encoder": encoder("T5EncoderModel", "T5Config", T5, head=GENERATES),
    "MT5 encoder": encoder("MT5EncoderModel", "MT5Config", T5, head=GENERATES),
    "Qwen2": encoder("Qwen2Model", "Qwen2Config", DECODER, "lasttoken", CAUSAL),
    "Qwen3": encoder("Qwen3Model", "Qwen3Config", DECODER, "lasttoken", CAUSAL),
    "EmbeddingGemma": encoder(
        "Gemma3TextModel", "Gemma3TextConfig", {**DECODER, "use_bidirectional_attention": True}
    ),
    "Mistral": encoder("MistralModel", "MistralConfig", DECODER, "lasttoken", CAUSAL),
    "Llama": encoder("LlamaModel", "LlamaConfig", DECODER, head=CAUSAL),
    "SmolLM": encoder("SmolLM3Model", "SmolLM3Config", DECODER, head=CAUSAL),
    "CLIP": Architecture(clip),
    "StaticEmbedding": Architecture(static),
    "SPLADE": Architecture(splade, st.SparseEncoder),
    "ColBERT": Architecture(colbert, st.MultiVectorEncoder),
    "CrossEncoder": Architecture(cross_encoder, st.CrossEncoder),
    "Router": Architecture(router),
}
