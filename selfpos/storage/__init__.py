"""Models on disk: located, opened lazily, hashed, and written whole or not at all."""

from __future__ import annotations

from selfpos.storage.atomic import fresh_folder
from selfpos.storage.hashing import content_hash, sha256_file
from selfpos.storage.locate import locate_model
from selfpos.storage.manifest import read_json, read_manifest, write_manifest
from selfpos.storage.model_folder import ModelFolder, open_model
from selfpos.storage.tensor_file import TensorFileWriter, read_header

__all__ = [
    "ModelFolder",
    "TensorFileWriter",
    "content_hash",
    "fresh_folder",
    "locate_model",
    "open_model",
    "read_header",
    "read_json",
    "read_manifest",
    "sha256_file",
    "write_manifest",
]
