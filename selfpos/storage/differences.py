"""In what two model folders differ, file by file and tensor by tensor."""

from __future__ import annotations

from pathlib import Path

from selfpos.storage.hashing import content_files, sha256_file


def compare_models(one: Path, other: Path) -> tuple[int, list[str]]:
    """The number of files compared, and a sentence on each file that decides the embeddings and is not the same, byte for byte, in both."""
    ours, theirs = set(content_files(one)), set(content_files(other))
    found = [f"{file} is missing in the new one" for file in sorted(ours - theirs)]
    found += [f"{file} is new" for file in sorted(theirs - ours)]
    for file in sorted(ours & theirs):
        if sha256_file(one / file) != sha256_file(other / file):
            found.append(
                f"{file} differs"
                + (f" ({_tensors(one / file, other / file)})" if file.suffix == ".safetensors" else "")
            )
    return len(ours | theirs), found


def _tensors(one: Path, other: Path) -> str:
    """How two weight files differ: in which tensors and by how much, or in their header only."""
    import numpy as np

    from selfpos.storage.model_folder import raw_tensor
    from selfpos.storage.numbers import MERGEABLE, to_float32
    from selfpos.storage.tensor_file import read_header

    ours, theirs = read_header(one)[0], read_header(other)[0]
    if {key: (entry.dtype, entry.shape) for key, entry in ours.items()} != {
        key: (entry.dtype, entry.shape) for key, entry in theirs.items()
    }:
        return "other tensors, shapes or number formats"
    different, worst = [], 0.0
    for key, entry in ours.items():
        left, right = raw_tensor(entry, {}), raw_tensor(theirs[key], {})
        if not np.array_equal(left, right):
            different.append(key)
            if entry.dtype in MERGEABLE:
                worst = max(
                    worst, float(np.abs(to_float32(left, entry.dtype) - to_float32(right, entry.dtype)).max())
                )
    if not different:
        return "all tensors are equal bit for bit, only the header differs"
    return f"{len(different)} of {len(ours)} tensors, by at most {worst:.3g}, the first {different[0]}"
