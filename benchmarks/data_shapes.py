"""Which shapes of data are read, refused or read wrongly: writes the table in docs/data.md. A minute.

python benchmarks/data_shapes.py            # of what the tests read
python benchmarks/data_shapes.py --glue DIR # rows of TSV files, beside the lines that they have
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
PAGE = ROOT / "docs" / "data.md"
START, END = "<!-- table of shapes: made by benchmarks/data_shapes.py -->", "<!-- end of the table -->"


def table_of(found: dict[str, str]) -> str:
    """The table as Markdown; `found` has the outcome of each shape by its title."""
    from tests.helpers.shapes import GROUPS

    text = []
    for group, shapes in GROUPS.items():
        text += [f"### {group}", "", "| shape | for | it looks like | |", "|---|---|---|---|"]
        for shape in shapes:
            says = found[shape.title]
            example = shape.example
            if isinstance(shape.wanted, str):
                example = f"“… {shape.wanted.partition('|')[0]} …”"
            text.append(f"| {shape.title} | {shape.task} | {example} | {says} |")
        text.append("")
    return "\n".join(text)


def outcomes() -> dict[str, str]:
    """Title → outcome of each shape."""
    import datasets

    from tests.helpers.shapes import SHAPES, outcome

    datasets.disable_progress_bars()
    found = {}
    for _, shape in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            try:
                found[shape.title] = outcome(shape, Path(folder))
            except Exception as error:
                found[shape.title] = f"wrong: {type(error).__name__}: {error}"
    return found


def glue(folder: Path) -> None:
    """Rows read of each TSV file below `folder`, and its lines without the first."""
    from selfpos.data.files import read_records
    from selfpos.errors import SelfposError

    for file in sorted(folder.rglob("*.tsv")):
        rows = file.read_bytes().count(b"\n") - 1
        try:
            found = str(len(read_records(file)))
        except SelfposError as error:
            found = f"refused: {error}"
        print(f"{'ok   ' if found == str(rows) else 'WRONG'} {file.name}: {found} of {rows}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--glue", type=Path, help="a folder of TSV files")
    asked = parser.parse_args()
    if asked.glue:
        glue(asked.glue)
        return
    found = outcomes()
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(START)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{START}\n\n{table_of(found)}\n{END}{after}", encoding="utf-8")
    for title, says in found.items():
        if says.startswith("wrong"):
            print(f"{title}: {says}")
    print(dict(Counter(says.partition(":")[0] for says in found.values())))


if __name__ == "__main__":
    main()
