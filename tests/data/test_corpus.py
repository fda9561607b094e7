from __future__ import annotations

import gzip
import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from selfpos.data import corpus as module
from selfpos.data.corpus import Corpus, load_corpus
from selfpos.data.corpus_extraction import HELD_OUT, extract, resolve, split_of, subpackage_of
from selfpos.errors import SelfposError


def test_public_functions_with_a_summary_and_a_body_are_read_and_nothing_is_imported(
    sources: dict[str, Path],
) -> None:
    entries = {entry.name: entry for entry in extract({"alpha": sources["alpha"]})}
    assert sorted(entries) == [
        "alpha.Table", "alpha.Table.mean", "alpha.Table.transposed", "alpha.core.cross", "alpha.mean",
        "alpha.median", "alpha.zeta.copy.linked",
    ]  # fmt: skip
    assert entries["alpha.Table"].kind == "class"
    assert entries["alpha.mean"].summary == "Average of the values along an axis."
    assert entries["alpha.mean"].body.endswith("how many there are of them. Numbers whose average is wanted.")


def test_see_also_leads_to_entries_also_through_a_copy_that_was_left_out(sources: dict[str, Path]) -> None:
    entries = {entry.name: entry for entry in extract({"alpha": sources["alpha"]})}
    assert entries["alpha.mean"].see_also == ("alpha.median", "alpha.Table.mean")
    assert entries["alpha.Table.transposed"].see_also == ("alpha.Table.mean",)
    assert entries["alpha.core.cross"].see_also == ("alpha.mean",)
    assert entries["alpha.zeta.copy.linked"].see_also == (
        "alpha.mean",
    )  # `average` has the summary of `mean`


def test_each_text_is_there_once(sources: dict[str, Path]) -> None:
    both = extract(sources)
    assert not [
        entry for entry in both if entry.name.startswith("beta") and "Average of each" in entry.summary
    ]
    for field in ("summary", "body"):
        assert max(Counter(getattr(entry, field).lower() for entry in both).values()) == 1


def test_nothing_to_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SelfposError, match="no documented Python sources found below"):
        extract({"alpha": tmp_path})


def test_resolve_takes_the_nearest_in_the_right_package() -> None:
    candidates = [
        (name, name)
        for name in ("numpy._core.fromnumeric.mean", "numpy.ma.core.mean", "pandas.core.series.Series.mean")
    ]
    assert resolve("mean", "numpy.ma.core.std", candidates) == "numpy.ma.core.mean"
    assert resolve("mean", "numpy._core.fromnumeric.std", candidates) == "numpy._core.fromnumeric.mean"
    assert (
        resolve("Series.mean", "pandas.core.frame.DataFrame.mean", candidates)
        == "pandas.core.series.Series.mean"
    )
    assert resolve("numpy.ma.mean", "pandas.core.frame.DataFrame.mean", candidates) == "numpy.ma.core.mean"
    assert resolve("Frame.mean", "pandas.core.frame.DataFrame.sum", candidates) is None


def test_subpackages() -> None:
    names = {
        "numpy._core.multiarray": "numpy.core",
        "pandas.core.frame": "pandas.core.frame",
        "pandas.io.sql": "pandas.io",
    }
    assert {module: subpackage_of(module) for module in names} == names
    assert subpackage_of("numpy") == "numpy"


def test_the_cache_serves_the_same_corpus_without_reading_sources(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "package_roots", lambda: sources)
    first = load_corpus(tmp_path)
    monkeypatch.setattr(
        module, "package_roots", lambda: pytest.fail("sources were looked for although the cache has them")
    )
    assert load_corpus(tmp_path) == first


def test_another_release_is_another_cache_file_and_a_damaged_file_is_made_anew(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "package_roots", lambda: sources)
    first = load_corpus(tmp_path)
    (file,) = tmp_path.glob("*.jsonl.gz")
    whole = file.read_bytes()
    for damaged in (whole[:-20], b"", gzip.compress(gzip.decompress(whole).replace(b"Average", b"average"))):
        file.write_bytes(damaged)
        assert load_corpus(tmp_path) == first
        assert file.read_bytes() == whole  # the same bytes out for the same sources
    monkeypatch.setattr(module, "corpus_versions", lambda: {"python": "9.9"})
    load_corpus(tmp_path)
    assert len(list(tmp_path.glob("*.jsonl.gz"))) == 2


def test_the_cache_is_where_xdg_says_and_a_closed_folder_does_not_matter(
    sources: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "package_roots", lambda: sources)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load_corpus()
    assert list((tmp_path / "xdg" / "selfpos").glob("corpus-*.jsonl.gz"))
    (tmp_path / "file").write_text("no folder")
    assert load_corpus(tmp_path / "file" / "below").entries


def test_the_real_corpus(corpus: Corpus) -> None:
    assert len(corpus.entries) > 5000
    assert sum(bool(entry.see_also) for entry in corpus.entries) > 1500
    assert [entry.name for entry in corpus.entries] == sorted({entry.name for entry in corpus.entries})
    names = {entry.name for entry in corpus.entries}
    for entry in corpus.entries:
        assert entry.summary.rstrip(".!: ").lower() not in entry.body.lower(), entry.name
        assert (
            len(entry.body) <= 400 and names.issuperset(entry.see_also) and entry.name not in entry.see_also
        )
        assert entry.split == split_of(entry.name, entry.subpackage)
    sizes = Counter(entry.split for entry in corpus.entries)
    assert sizes["train"] > 3 * sizes["test"] > 3 * sizes["validation"] > 0
    held_out = Counter(entry.subpackage for entry in corpus.part("held-out"))
    missing = (
        set() if importlib.util.find_spec("tkinter") else {"python.tkinter"}
    )  # some systems leave it out
    assert set(held_out) == set(HELD_OUT) - missing and min(held_out.values()) >= 25
    assert not {entry.subpackage for entry in corpus.entries if entry.split != "held-out"} & set(HELD_OUT)
