"""Records: where they come from, the embedded corpus, and the probe set held out of them."""

from __future__ import annotations

from selfpos.data.corpus import Corpus, load_corpus
from selfpos.data.probe import ProbeTask, hold_out, read_probe, write_probe
from selfpos.data.sources import LoadedSource, load_source

__all__ = [
    "Corpus", "LoadedSource", "ProbeTask", "hold_out", "load_corpus", "load_source", "read_probe",
    "write_probe",
]  # fmt: skip
