"""How each contender is started for one merge, in a process of its own. Run as a script it is the process of
those that have no command line."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging_inputs import SHAPES

DENSITY = 0.2


@dataclass(frozen=True)
class Job:
    """One merge: a shape, a method of METHODS, the base, the vectors."""

    shape: str
    method: str
    base: Path
    sources: list[Path]

    @property
    def kind(self) -> str:
        """The class of sentence-transformers."""
        return SHAPES[self.shape].kind

    @property
    def name(self) -> str:
        return f"{self.shape} {self.method} x{len(self.sources)}"


METHODS = ("linear", "task-arithmetic", "slerp", "ties", "ties-global", "karcher")
"""`slerp` is the usual one, per tensor between the first two models; `ties-global` has one threshold per
vector, which only selfpos has."""
CONTENDERS = ("selfpos", "mergekit", "sentence-transformers", "LM_Cocktail")
STARTUP = {
    "selfpos": "import selfpos.merging",
    "mergekit": "import mergekit.scripts.run_yaml",
    "sentence-transformers": "import sentence_transformers",
    "LM_Cocktail": "import LM_Cocktail",
}


def command(contender: str, job: Job, out: Path, python: str) -> list[str] | None:
    """The command of a contender for a job, or None when it has no such method."""
    if contender == "selfpos":
        return _selfpos(job, out)
    if contender in {"mergekit", "LM_Cocktail"} and job.kind != "SentenceTransformer":
        return None  # they would leave out the head, or load another model
    if job.method == "ties-global" or (contender == "LM_Cocktail" and job.method != "linear"):
        return None
    if contender == "mergekit":
        recipe = out.with_suffix(".yml")
        recipe.write_text(json.dumps(_mergekit_recipe(job)))  # JSON is YAML
        return [str(Path(python).with_name("mergekit-yaml")), str(recipe), str(out)]
    facts = {
        "method": job.method,
        "base": str(job.base),
        "sources": list(map(str, job.sources)),
        "out": str(out),
    }
    if contender == "sentence-transformers":
        facts["kind"] = job.kind
    return [python, __file__, contender, json.dumps(facts)]


def write_command(job: Job, out: Path) -> list[str]:
    """The process that prints how long merging and writing alone take selfpos."""
    facts = {
        "method": job.method,
        "base": str(job.base),
        "sources": list(map(str, job.sources)),
        "out": str(out),
    }
    return [sys.executable, __file__, "selfpos-write", json.dumps(facts)]


def _selfpos(job: Job, out: Path) -> list[str]:
    base, sources, extra = job.base, job.sources, []
    method = {"ties-global": "ties", "slerp": "tensor-slerp"}.get(job.method, job.method)
    if job.method == "linear":
        extra = ["--weights", *[str(1 / len(sources))] * len(sources)]
    elif job.method == "ties":
        extra = ["--param", "scope=tensor", "--param", f"density={DENSITY}"]
    elif job.method == "slerp":
        base, sources = sources[0], sources[1:2]
    elif job.method == "karcher":
        extra = ["--param", "space=models", "--param", "steps=10", "--param", "tolerance=1e-5"]
    vectors = ["--vectors", *map(str, sources)]
    return [
        sys.executable,
        "-m",
        "selfpos",
        "merge",
        "--base",
        str(base),
        *vectors,
        "--method",
        method,
        *extra,
        "--out",
        str(out),
    ]


def _mergekit_recipe(job: Job) -> dict[str, Any]:
    recipe: dict[str, Any] = {
        "merge_method": job.method.replace("-", "_"),
        "dtype": "float32" if "qwen" not in job.shape else "bfloat16",
    }
    models = [{"model": str(source)} for source in job.sources]
    if job.method == "slerp":
        return recipe | {"models": models[:2], "base_model": str(job.sources[0]), "parameters": {"t": 0.5}}
    if job.method == "karcher":
        return recipe | {"models": models}
    models = [
        model | {"parameters": {"weight": 1.0} | ({"density": DENSITY} if job.method == "ties" else {})}
        for model in models
    ]
    return recipe | {"models": models} | ({} if job.method == "linear" else {"base_model": str(job.base)})


def sentence_transformers_merge(method: str, base: str, sources: list[str], out: str, kind: str) -> None:
    """Load, merge and save as the documentation shows, in the class `kind`."""
    import sentence_transformers

    options: dict[str, Any] = {
        "linear": {},
        "slerp": {"t": 0.5},
        "karcher": {},
        "task-arithmetic": {},
        "ties": {"density": DENSITY},
    }[method]
    based = {} if method in {"linear", "slerp", "karcher"} else {"base_model": base}
    models = sources[:2] if method == "slerp" else sources
    kept = {"dtype": None} if "qwen" in base else {}
    merged = getattr(sentence_transformers, kind).merge(
        models,
        method=method.replace("-", "_"),
        parameters=options or None,
        model_kwargs={"dtype": "auto"},
        **based,
        **kept,
    )
    merged.save_pretrained(out)


def lm_cocktail_merge(method: str, base: str, sources: list[str], out: str) -> None:
    """The linear mix of LM_Cocktail."""
    from LM_Cocktail import mix_models

    mix_models(sources, "encoder", [1 / len(sources)] * len(sources), out)


def selfpos_write(method: str, base: str, sources: list[str], out: str) -> None:
    """Print the CPU seconds that selfpos needs to merge and write, after start-up, checks and hashes of the
    inputs."""
    import resource

    from selfpos.merging import plan
    from selfpos.merging.merge import execute

    made = plan(Path(base), [Path(source) for source in sources], method, Path(out))
    before = resource.getrusage(resource.RUSAGE_SELF)
    execute(made, show=False)
    after = resource.getrusage(resource.RUSAGE_SELF)
    print(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


if __name__ == "__main__":
    {
        "selfpos-write": selfpos_write,
        "sentence-transformers": sentence_transformers_merge,
        "LM_Cocktail": lm_cocktail_merge,
    }[sys.argv[1]](**json.loads(sys.argv[2]))
