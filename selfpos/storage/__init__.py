"""Models on disk: where they are, what they hold, how they are read lazily, hashed, and written whole or not at all."""

from __future__ import annotations

from selfpos.storage.atomic import fresh_folder, resumable_folder
from selfpos.storage.hashing import content_hash, sha256_file
from selfpos.storage.locate import display_name, hub_snapshot, locate_model
from selfpos.storage.manifest import read_manifest, write_manifest
from selfpos.storage.model_folder import ModelFolder, Module, open_model
from selfpos.storage.tensor_file import TensorEntry, TensorFileWriter, read_header

__all__ = [
    "ModelFolder",
    "Module",
    "TensorEntry",
    "TensorFileWriter",
    "content_hash",
    "display_name",
    "fresh_folder",
    "hub_snapshot",
    "locate_model",
    "open_model",
    "read_header",
    "read_manifest",
    "resumable_folder",
    "sha256_file",
    "write_manifest",
]
