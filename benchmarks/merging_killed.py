"""A merge killed with SIGKILL in the middle: what is on disk then, and what the second start makes of it.

    python benchmarks/merging_killed.py

What it prints is kept in benchmarks/results/merging_killed.txt. Three models of 60 million weights each are made in a temporary folder (1 GB); work is noted every fifth of a second, so that there is something to keep.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

RESULT = Path(__file__).parent / "results" / "merging_killed.txt"
SHAPES = {f"encoder.layer.{index}.dense.weight": (2500, 2000) for index in range(12)}
PROGRAM = """
import sys
from pathlib import Path
from selfpos.merging import merge, write
write.CHECKPOINT_SECONDS = 0.2
merge(Path(sys.argv[1]), [Path(name) for name in sys.argv[3:]], "ties", Path(sys.argv[2]), threads=1)
"""


def listing(folder: Path) -> str:
    """What lies below `folder` beside the inputs."""
    found = [
        f"  {file.relative_to(folder)}  {file.stat().st_size:,} bytes"
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    return "\n".join(line for line in found if not line.startswith(("  base", "  v0", "  v1", "  whole")))


def main() -> None:
    from tests.helpers.folders import make_folder, moved, random_state

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generator = np.random.default_rng(0)
        base = random_state(generator, shapes=SHAPES)
        sources = [
            make_folder(folder / f"v{index}", moved(base, random_state(generator, 0.1, SHAPES)))
            for index in range(2)
        ]
        place = make_folder(folder / "base", base)
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}

        def command(out: Path) -> list[str]:
            return [sys.executable, "-c", PROGRAM, str(place), str(out), *map(str, sources)]

        subprocess.run(command(folder / "whole"), check=True, env=environment)
        process = subprocess.Popen(command(folder / "out"), env=environment)
        while not any(
            json.loads(found.read_text())["pieces"] >= 20 for found in folder.glob(".out.tmp-*/.journal")
        ):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        said = [time.strftime("%Y-%m-%d")]
        said.append(
            f"killed: exit status {process.returncode}; output folder there: {(folder / 'out').exists()}\n{listing(folder)}"
        )
        (journal,) = folder.glob(".out.tmp-*/.journal")
        said.append(f"  .journal says: {journal.read_text()}")
        subprocess.run(command(folder / "out"), check=True, env=environment)
        same = (folder / "out" / "model.safetensors").read_bytes() == (
            folder / "whole" / "model.safetensors"
        ).read_bytes()
        said.append(
            f"second start: finished; same bytes as a merge that nobody disturbed: {same}\n{listing(folder)}"
        )
    print("\n".join(said))
    RESULT.write_text("\n".join(said) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
