"""mteb's result files, which it writes in place, made whole before they are where others read them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mteb import ResultCache

from selfpos.storage.atomic import write_bytes

if TYPE_CHECKING:
    from mteb.models import ModelMeta

BESIDE_RESULTS = ("model_meta.json", "run_settings.jsonl")


class StagedResults(ResultCache):
    """mteb's results of one task in a temporary `folder`, begun with those that `file` has of it.

    mteb saves them after each subset, and at the end. After each save `before` is called; then they are at
    their place, `file` last, for it says what is done.
    """

    def __init__(
        self,
        folder: Path,
        meta: ModelMeta,
        file: Path,
        before: Callable[[], object],
        encode_kwargs: Mapping[str, Any],
    ) -> None:
        super().__init__(folder)
        self._file, self._before, self._encode_kwargs = file, before, encode_kwargs
        self._staged = self.get_task_result_path(file.stem, meta).parent
        self._staged.mkdir(parents=True)
        for name in self._names:
            if (file.parent / name).is_file():
                shutil.copyfile(file.parent / name, self._staged / name)

    @property
    def _names(self) -> tuple[str, ...]:
        return (*BESIDE_RESULTS, self._file.name)

    def save_to_cache(self, *args: Any, **kwargs: Any) -> None:
        # after a subset mteb does not say how texts were encoded
        super().save_to_cache(*args, **{**kwargs, "encode_kwargs": self._encode_kwargs})
        self._before()
        self._file.parent.mkdir(parents=True, exist_ok=True)
        for name in self._names:
            if (self._staged / name).is_file():
                write_bytes(self._file.parent / name, (self._staged / name).read_bytes())
