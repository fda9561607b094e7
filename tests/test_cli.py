"""The command line as a process: help, bad input, exit status."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from selfpos import cli
from selfpos.cli import VERBS
from selfpos.errors import stopped
from tests.helpers.command import ROOT, CommandLine, Done, own_process, said
from tests.helpers.models import make_tiny_model


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_imports_nothing_heavy(verb: str) -> None:
    """Help answers in a fraction of a second because none of the heavy libraries is imported for it."""
    heavy = {
        "torch",
        "transformers",
        "sentence_transformers",
        "mteb",
        "datasets",
        "numpy",
        "matplotlib",
        "rich",
    }
    code = (
        "import sys; sys.argv = ['selfpos', *sys.argv[1:]]\nfrom selfpos.cli import selfpos\n"
        f"selfpos(standalone_mode=False)\nprint('LOADED', sorted({heavy} & set(sys.modules)))"
    )
    words = [verb, "--help"] if verb else ["--help"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=Path(__file__).parent.parent
    )
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert "LOADED []" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_fits_a_terminal_and_ends_with_command_lines_of_it(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    group = click.Context(cli.selfpos)
    command = cli.selfpos.get_command(group, verb)
    assert command is not None
    shown = command.get_help(click.Context(command, group, f"selfpos {verb}"))
    assert max(map(len, shown.splitlines())) <= 80
    examples = shown.partition("Examples:")[2].replace(" \\\n", " ")
    lines = [shlex.split(line) for line in examples.splitlines() if line.strip()]
    assert len(lines) >= (1 if verb == "tasks" else 2)
    for start, name, *words in lines:
        assert (start, name) == ("selfpos", verb)
        called = command
        while isinstance(called, click.Group):
            called = called.commands[words.pop(0)]
        called.make_context(verb, words)


@pytest.mark.parametrize("verb", VERBS)
def test_the_groups_of_a_help_name_options_of_the_verb(verb: str) -> None:
    command = cli.selfpos.get_command(click.Context(cli.selfpos), verb)
    assert command is not None
    options = {name for parameter in command.params for name in parameter.opts}
    grouped = [name for names in getattr(command, "groups", {}).values() for name in names]
    assert set(grouped) <= options
    assert len(grouped) == len(set(grouped))
    assert grouped or len(options) <= 12


def test_unknown_verb_names_the_nearest(selfpos: CommandLine) -> None:
    assert "did you mean 'merge'?" in said(selfpos("marge"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("finetune", "missing option '--task' (see selfpos finetune --help)"),
        (
            "finetune --task sts --stpes 3",
            "there is no option '--stpes'; did you mean '--steps'? (see selfpos finetune --help)",
        ),
        ("finetune --task", "option '--task' requires an argument"),
        (
            "finetune --task sts --steps many --out x",
            "'many' is not a valid integer range (see selfpos finetune --help)",
        ),
        (
            "finetune --task sts --lr 3",
            "there is no option '--lr'; did you mean '--learning-rate'? (see selfpos finetune --help)",
        ),
        (
            "finetune --task sts --out x",
            "say what to train on: --data FILE (or a folder, or hub:NAME), or --data corpus for the "
            "docstrings on this machine",
        ),
        (
            "eval-mteb --tasks STS12 merged",
            "missing argument MODEL…; --tasks takes all words after it, so MODEL… comes first "
            "(see selfpos eval-mteb --help)",
        ),
        (
            f"merge {ROOT / 'recipes' / 'quickstart.yaml'}",
            "quickstart.yaml is a recipe of selfpos: carry it out with "
            f"`selfpos run {ROOT}/recipes/quickstart.yaml`",
        ),
        ("merge --vectors a b --method ties", "say where the merged model goes: --out FOLDER"),
        ("push model", "missing argument 'REPO' (see selfpos push --help)"),
        ("--nope", "there is no option '--nope' (see selfpos --help)"),
    ],
)
def test_a_wrong_command_line_gets_one_sentence_without_usage_lines(
    selfpos: CommandLine, words: str, says: str
) -> None:
    sentence = said(selfpos(*words.split()))
    assert sentence.startswith("selfpos: ")
    assert sentence.endswith(f"{says}\n")
    assert sentence.count("\n") == 1


def test_a_name_that_is_neither_folder_nor_model_is_a_mistake(selfpos: CommandLine, tmp_path: Path) -> None:
    """`nowhere/x` could be a name on the Hub; without a network the cache is all that can be asked."""
    done = selfpos(
        "eval-mteb",
        "nowhere/x",
        "--tasks",
        "STSBenchmark",
        "--out",
        tmp_path / "scores",
        HF_HUB_OFFLINE="1",
        HF_HOME=str(tmp_path),
    )
    assert "there is no folder nowhere/x" in said(done)
    assert "HF_HUB_OFFLINE is set" in said(done)
    assert not (tmp_path / "scores").exists()


@pytest.fixture
def recipe(tmp_path: Path, tiny_base: Path) -> dict:
    data = tmp_path / "pairs.jsonl"
    data.write_text(
        "".join(f'{{"anchor": "word {n}", "positive": "about {n}"}}\n' for n in range(40)), encoding="utf-8"
    )
    return {
        "name": "bad",
        "base": str(tiny_base),
        "tasks": {"retrieval": {"type": "retrieval", "data": str(data)}},
        "training": {"steps": 1, "batch_size": 4},
        "probe": {"per_task": 4},
        "merges": {"average": {"method": "average"}},
    }


def run(selfpos: CommandLine, recipe: dict, folder: Path) -> Done:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return selfpos("run", file, "--out", folder / "out")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trainning": {}}, "no field 'trainning'; did you mean 'training'"),
        ({"tasks": {"a": {"type": "retrival", "data": "x"}}}, "did you mean 'retrieval'"),
        ({"tasks": {"a": {"type": "retrieval", "data": "absent.jsonl"}}}, "absent.jsonl"),
        ({"merges": {"m": {"method": "tise"}}}, "did you mean 'ties'"),
        ({"merges": {"m": {"method": "ties", "params": {"densty": 0.1}}}}, "densty"),
        ({"merges": {"retrieval": {"method": "average"}}}, "two models are named"),
        (
            {"merges": {"m": {"method": "self-positioning", "positioning": {"ratios": {"retrieva": 2}}}}},
            "did you mean 'retrieval'",
        ),
        (
            {"merges": {"m": {"method": "layer-wise"}}, "probe": {"per_task": 3}},
            "too few with a held-out share of 0.5",
        ),
        ({"evaluation": {"tasks": ["STSBenchmrk"]}}, "STSBenchmark"),
        ({"base": "no/such/folder"}, "no/such/folder"),
    ],
)
def test_a_wrong_recipe_gets_one_sentence_and_writes_nothing(
    selfpos: CommandLine, recipe: dict, tmp_path: Path, change: dict, says: str
) -> None:
    assert says in said(run(selfpos, recipe | change, tmp_path))
    assert not (tmp_path / "out").exists()


def test_an_empty_data_set(selfpos: CommandLine, recipe: dict, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("", encoding="utf-8")
    assert "pairs.jsonl" in said(run(selfpos, recipe, tmp_path))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow  # the first to need the corpus makes it
def test_a_folder_that_is_no_model(selfpos: CommandLine, recipe: dict, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    sentence = said(run(selfpos, recipe | {"base": str(tmp_path / "empty")}, tmp_path))
    assert "sentence-transformers" in sentence
    assert not (tmp_path / "out").exists()
    assert "sentence-transformers" in said(
        selfpos("eval-mteb", tmp_path / "empty", "--tasks", "corpus", "--out", tmp_path / "scores")
    )
    assert "sentence-transformers" in said(selfpos("push", tmp_path / "empty", "me/model", "--dry-run"))


def merge(selfpos: CommandLine, base: Path, sources: list[Path], out: Path, *words: str) -> Done:
    return selfpos(
        "merge", "--vectors", *sources, "--base", base, "--method", "average", "--out", out, *words
    )


def test_merge_refuses_another_architecture_another_base_and_an_existing_folder(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", hidden=48)
    assert "embeddings" in said(merge(selfpos, tiny_base, [tiny_specialists[0], other], tmp_path / "out"))
    stranger = tmp_path / "stranger"
    shutil.copytree(tiny_specialists[0], stranger)
    (stranger / "selfpos.json").write_text(
        json.dumps({"base": {"name": "another-base", "hash": "0" * 64}}), encoding="utf-8"
    )
    assert "another-base" in said(
        merge(selfpos, tiny_base, [tiny_specialists[1], stranger], tmp_path / "out")
    )
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine", encoding="utf-8")
    assert "exists" in said(merge(selfpos, tiny_base, tiny_specialists, tmp_path / "out"))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["precious.txt"]


def test_merge_takes_the_words_after_vectors_and_its_result_loads(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    done = merge(selfpos, tiny_base, tiny_specialists, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    merged, base = SentenceTransformer(str(tmp_path / "out")), SentenceTransformer(str(tiny_base))
    assert [type(module) for module in merged] == [type(module) for module in base]
    assert merged.prompts == base.prompts
    assert "average" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_an_equals_sign_takes_the_words_after_it_too(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    first, *others = tiny_specialists
    done = selfpos(
        "merge",
        f"--vectors={first}",
        *others,
        "--base",
        tiny_base,
        "--method",
        "average",
        "--out",
        tmp_path / "out",
    )
    assert done.returncode == 0, done.stderr
    assert (
        len(json.loads((tmp_path / "out" / "selfpos.json").read_text(encoding="utf-8"))["merge"]["sources"])
        == 3
    )


def test_push_dry_run_shows_files_and_card_and_sends_nothing(
    selfpos: CommandLine, tiny_base: Path, tiny_specialists: list[Path], tmp_path: Path
) -> None:
    assert merge(selfpos, tiny_base, tiny_specialists, tmp_path / "out").returncode == 0
    done = selfpos("push", tmp_path / "out", "someone/merged", "--dry-run", "--license", "mit")
    assert done.returncode == 0, done.stderr
    assert "model.safetensors" in done.stdout
    assert "- merge" in done.stdout  # its tag
    assert "license: mit" in done.stdout


def test_a_specialist_is_trained_and_positioned_with_what_was_held_out(
    selfpos: CommandLine, tiny_base: Path, tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    data = tmp_path / "pairs.jsonl"
    data.write_text(
        "".join(f'{{"anchor": "word {n}", "positive": "about {n}"}}\n' for n in range(60)), encoding="utf-8"
    )
    words = [
        "--task",
        "retrieval",
        "--base",
        tiny_base,
        "--data",
        data,
        "--steps",
        "2",
        "--batch-size",
        "8",
        "--probe",
        "32",
    ]
    done = selfpos("finetune", *words, "--out", tmp_path / "docs")
    assert done.returncode == 0, done.stderr
    assert "60 records" in " ".join(done.stderr.split())
    again = selfpos("finetune", *words, "--out", tmp_path / "docs")
    assert "exists" in said(again)

    merge = [
        "merge",
        "--vectors",
        tmp_path / "docs",
        "--base",
        tiny_base,
        "--method",
        "self-positioning",
        "--out",
        tmp_path / "merged",
    ]
    done = selfpos(*merge)
    assert done.returncode == 0, done.stderr
    assert re.search(r"merged  \(docs -?\d+\.\d{3} \(-?\d+\.\d\d to -?\d+\.\d\d\)\)", done.stdout)
    assert "on the probe set: " in done.stderr
    assert "self" in (tmp_path / "merged" / "README.md").read_text(encoding="utf-8").lower()
    assert SentenceTransformer(str(tmp_path / "merged"), device="cpu").encode("a").shape == (16,)

    data.write_text(data.read_text(encoding="utf-8").replace("about 1", "about one"), encoding="utf-8")
    assert "has changed since it was trained" in said(selfpos(*merge[:-1], tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_disk_that_refuses_is_one_sentence_and_exit_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "out/model.safetensors")

    monkeypatch.setattr(cli, "selfpos", full)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert capsys.readouterr().err == "selfpos: out/model.safetensors: No space left on device\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyboardInterrupt(), "selfpos: stopped\n"),
        (stopped("step 3"), "selfpos: stopped; step 3 is kept, and the same command continues from there\n"),
    ],
)
def test_ctrl_c_is_exit_130_and_tells_what_is_kept(
    error: KeyboardInterrupt, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise error

    monkeypatch.setattr(cli, "selfpos", click.command()(interrupted))
    monkeypatch.setattr(sys, "argv", ["selfpos"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 130
    assert capsys.readouterr().err.lstrip("\n") == said


@pytest.mark.parametrize("words", [["--out", "~/out"], ["--out=~/out"]], ids=["quoted", "after ="])
def test_the_home_folder_is_meant_where_the_shell_leaves_it(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["selfpos", "finetune", "--task", "sts", "--data", "x.csv", *words])
    with pytest.raises(SystemExit):
        cli.main()
    assert f"{tmp_path / 'out'} exists already" in capsys.readouterr().err


def test_ctrl_c_within_an_import_has_its_exit_status(tmp_path: Path) -> None:
    interrupted = "def interrupted(**_):\n    exec('import signal; signal.raise_signal(signal.SIGINT)')\n"
    start = f"import selfpos.cli\n{interrupted}selfpos.cli.selfpos = interrupted\n"
    (tmp_path / "sitecustomize.py").write_text(start, encoding="utf-8")
    done = own_process(PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert (done.returncode, done.stderr) == (130, "selfpos: stopped\n")


def test_a_verb_that_is_gone_says_what_to_do(selfpos: CommandLine) -> None:
    assert "write the tasks into a recipe by hand" in said(selfpos("cluster", "english", "-k", "2"))
