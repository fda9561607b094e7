"""Fuzzers that the coverage of selfpos' own code guides (atheris), over what opens the files that strangers
send most. They are judged as those of `fuzzing`.

    python benchmarks/faults/guided.py NAME MINUTES REPORT FOLDER   # one of them; the group starts it so
"""

from __future__ import annotations

import gc
import os
import random
import re
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openers import Opener
    from place import Place
    from trial import Outcome

NEEDS = "atheris"
OPENERS = (
    "a safetensors header",
    "a weight index",
    "an adapter_config.json",
    "modules.json",
    "a manifest selfpos.json",
    "a recipe",
    "records",
)
HANGS = 20  # seconds in one content after which the fuzzer is ended
BEGINS = 600  # seconds that imports and first contents may take on a busy machine
FIRST = 200  # contents drawn near valid ones, from which it goes on
MOST_BYTES = 20_000  # of a content: two to ten times a valid one
HALF = b"\x80"  # contents from this byte on say what to draw near a valid one, the others are a file's bytes


def outcomes(place: Place, minutes: float, fault: str) -> Iterator[Outcome]:
    """Those of all fuzzers, as many at a time as there are processors."""
    names = [name for name in OPENERS if fault in name]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for found in pool.map(lambda name: list(guided(place.fresh(), name, minutes)), names):
            yield from found


def guided(folder: Path, name: str, minutes: float) -> Iterator[Outcome]:
    """The outcomes of one fuzzer, in a process of its own."""
    # here, for they import selfpos, which a fuzzer must have instrumented first
    from fuzzing import counted
    from trial import Outcome

    report, said = folder / "report", folder / "said"
    words = [sys.executable, __file__, name, str(minutes), str(report), str(folder)]
    with said.open("w") as stream:
        try:
            status = subprocess.run(
                words, stdout=subprocess.DEVNULL, stderr=stream, timeout=60 * minutes + BEGINS, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            status = None
    told = said.read_text(errors="backslashreplace")
    ends = [repr(file.read_bytes())[:200] for file in folder.glob("ended-*")]
    fault = f"guided for {minutes:g} min: {name}"
    first, last = grown(told)
    if last <= first:
        yield Outcome(fault, f"coverage did not grow from {first}", "")
    saw = f"returns, or one sentence; coverage grew from {first} to {last}"
    yield from counted(fault, report, status, " ".join([told[-200:], *ends]), saw)


def grown(told: str) -> tuple[int, int]:
    """What libFuzzer counts, branches by how often they are taken: of the first contents, and of all."""
    features = re.findall(r"^#\d+\s+(\w+) .* ft: (\d+)", told, re.MULTILINE)
    first = [int(number) for event, number in features if event == "INITED"]
    return (first[0], int(features[-1][1])) if first else (0, 0)


def main(name: str, minutes: float, report: Path, folder: Path) -> None:
    """Be the fuzzer `name`."""
    import atheris

    with atheris.instrument_imports(include=["selfpos"]):
        from place import Place, warm

        warm()
        from fuzzing import MEMORY, Tally
        from openers import openers
        from trial import address_space

        opener = next(one for one in openers(Place(folder / "place")) if one.name == name)
        tally, rng = Tally(opener, report), random.Random(24)
        corpus = folder / "corpus"
        corpus.mkdir()
        for number, content in enumerate(drawn(opener)):
            tally.judge(content)  # which imports what the opener needs, within the block
            (corpus / f"first-{number:03}").write_bytes(b"\0" + content)
            (corpus / f"first-{number:03}-near").write_bytes(HALF + rng.randbytes(2000))
    end = time.monotonic() + 60 * minutes

    near = near_valid(opener, tally.judge).hypothesis.fuzz_one_input  # draws by the bytes it is given

    def one(content: bytes) -> None:
        if time.monotonic() > end:
            tally.save()
            os._exit(0)
        (near if content[:1] >= HALF else tally.judge)(content[1:])
        if tally.tried % 1000 == 0:
            gc.collect()

    words = folder / "words"
    words.write_text("\n".join(dictionary(corpus)))
    limits = [f"-timeout={HANGS}", f"-max_len={MOST_BYTES}", "-rss_limit_mb=0"]
    limits += ["-detect_leaks=0", "-len_control=0", "-seed=24"]
    paths = [f"-dict={words}", f"-artifact_prefix={folder / 'ended-'}", str(corpus)]
    atheris.Setup([sys.argv[0], *limits, *paths], one)
    most = address_space() + MEMORY * 1_000_000
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    atheris.Fuzz()


def drawn(opener: Opener) -> list[bytes]:
    """Contents near valid ones, each once."""
    found: dict[bytes, None] = {}
    near_valid(opener, lambda content: found.setdefault(content))()
    return [content for content in found if len(content) < MOST_BYTES]


def near_valid(opener: Opener, then: Callable[[bytes], object]) -> Any:
    """A test of hypothesis, which draws FIRST contents and does `then` with each."""
    from hypothesis import HealthCheck, Phase, given, seed, settings

    quiet = {"database": None, "deadline": None, "suppress_health_check": list(HealthCheck)}

    @seed(24)
    @settings(max_examples=FIRST, phases=[Phase.generate], **quiet)
    @given(opener.content)
    def each(content: bytes) -> None:
        then(content)

    return each


def dictionary(corpus: Path) -> list[str]:
    """The words and signs of the contents, which the fuzzer puts where others stood."""
    text = b"\n".join(file.read_bytes() for file in sorted(corpus.iterdir()))
    words = sorted(set(re.findall(rb'"[\w./ -]{1,30}"', text)))[:500]
    signs = [b"null", b"true", b"-1", b"1e999", b"[]", b"{}", b'""', b"\\ud800", b"../", b'": ', b", "]
    return ["".join(['"', *(f"\\x{byte:02x}" for byte in word), '"']) for word in [*words, *signs]]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
