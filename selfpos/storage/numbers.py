"""The number formats of safetensors files, and their way to float32 and back without torch."""

from __future__ import annotations

import numpy as np

# safetensors name -> (numpy type of the stored bits, torch's name). bfloat16 has no numpy type: its bits are
# uint16.
_FORMATS = {
    "F64": ("<f8", "float64"),
    "F32": ("<f4", "float32"),
    "F16": ("<f2", "float16"),
    "BF16": ("<u2", "bfloat16"),
    "I64": ("<i8", "int64"),
    "I32": ("<i4", "int32"),
    "I16": ("<i2", "int16"),
    "I8": ("i1", "int8"),
    "U64": ("<u8", "uint64"),
    "U32": ("<u4", "uint32"),
    "U16": ("<u2", "uint16"),
    "U8": ("u1", "uint8"),
    "BOOL": ("?", "bool"),
    "F8_E4M3": ("u1", "float8_e4m3fn"),
    "F8_E5M2": ("u1", "float8_e5m2"),
}
STORED: dict[str, np.dtype] = {name: np.dtype(stored) for name, (stored, _) in _FORMATS.items()}
TORCH = {name: torch_name for name, (_, torch_name) in _FORMATS.items()}
"""safetensors name -> torch's (and a config.json's) name."""
MERGEABLE = ("F64", "F32", "F16", "BF16")
"""The formats that can be merged, widest first."""
NAMES = {TORCH[name]: name for name in MERGEABLE} | {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
"""What users call the formats -> safetensors name."""


def to_float32(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Stored bits of format `dtype` as float32, same shape. Float32 input comes back as it is, uncopied."""
    if dtype == "F32":
        return raw
    if dtype != "BF16":
        return raw.astype(np.float32)
    bits = raw.astype(np.uint32)  # two plain loops: a shift that widens as it goes is several times slower
    bits <<= np.uint32(16)
    return bits.view(np.float32)


def from_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """Float32 values as the stored bits of format `dtype`, rounded to nearest, ties to even."""
    if dtype != "BF16":
        return np.ascontiguousarray(values, dtype=STORED[dtype])
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    odd = bits >> np.uint32(16)
    odd &= np.uint32(1)
    odd += np.uint32(0x7FFF)
    odd += bits
    odd >>= np.uint32(16)
    return odd.astype(np.uint16)
