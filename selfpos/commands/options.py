"""What verbs share: options from a settings model, and options of several values."""

from __future__ import annotations

import re
import shutil
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from selfpos.console import is_first
from selfpos.errors import SelfposError

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

Function = TypeVar("Function", bound=Callable[..., Any])


PATH = click.Path(path_type=Path)
ALLOW_PICKLE = click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read weights that are pickled: their tensors only, no code of theirs is run.",
)
MANY = {
    *("--vectors", "--weights", "--tasks", "--task-types", "--languages", "--subsets"),
    *("--texts", "--domain", "--general"),
}


class Verb(click.Command):
    """A verb whose help shows options in groups: `groups` maps a title to the options below it; those that
    it does not name come first.
    """

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[str]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups = groups or {}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        titles = {option: title for title, options in self.groups.items() for option in options}
        sections: dict[str, list[tuple[str, str]]] = {"Options": [], **{title: [] for title in self.groups}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                shown = record[0].replace(" RANGE", "")  # the limits stand behind the text
                sections[titles.get(parameter.opts[0], "Options")].append((shown, record[1]))
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


class ManyValues(Verb):
    """Lets `--vectors A B C` take all words up to the next option, as `--vectors A --vectors B` does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option before each of its values. Raises click.UsageError where one took an argument."""
        spread: list[str] = []
        option: str | None = None
        for word in args:
            if word.startswith("--"):
                name, equals, _ = word.partition("=")
                option = name if name in MANY else None
                if option is None or equals:
                    spread.append(word)
            elif option is not None:
                spread += [option, word]
            else:
                spread.append(word)
        try:
            return super().parse_args(ctx, spread)
        except click.MissingParameter as error:
            if option is None or not isinstance(error.param, click.Argument):
                raise
            argument = error.param.make_metavar(ctx)
            raise click.UsageError(
                f"missing argument {argument}; {option} takes all words after it, so {argument} comes first",
                ctx,
            ) from None


def examples(*lines: str, before: str = "") -> str:
    """The end of a verb's help: `before`, then the command lines, broken before an option where they are
    wider than 80 columns.
    """
    shown = "\n".join(["\b", "Examples:", *(f"  {_broken(f'selfpos {line}')}" for line in lines)])
    return f"{before}\n\n{shown}" if before else shown


def _broken(line: str) -> str:
    rows = [""]
    for part in re.split(r" (?=--)", line):
        if rows[-1] and len(rows[-1]) + len(part) > 73:
            rows[-1] += " \\"
            rows.append(f"      {part}")
        else:
            rows[-1] = f"{rows[-1]} {part}".lstrip() if len(rows) == 1 else f"{rows[-1]} {part}"
    return "\n".join(rows)


def help_width() -> int:
    """Columns of the terminal, at most 110."""
    return min(shutil.get_terminal_size().columns, 110)


def without_pickles(model: str, allowed: bool) -> str:
    """The model's name; where pickles are `allowed`, its folder, in which they are made safetensors."""
    from selfpos.storage.locate import locate_model
    from selfpos.storage.pickles import without_pickles as converted

    return str(converted(locate_model(model, pickles=True))) if allowed else model


def say(line: str) -> None:
    """A line on standard error, by the first of several processes."""
    if is_first():
        click.echo(line, err=True)


def split_names(names: tuple[str, ...]) -> list[str]:
    """Names that may be separated by commas, too."""
    return [name for group in names for name in group.split(",")]


def named_values(option: str, form: str, words: tuple[str, ...], *, empty: bool = False) -> dict[str, str]:
    """The values of an option that takes NAME=VALUE, by name; `form` is what the error calls that.

    With `empty` a value may be empty.
    """
    values = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (name and sign and (value or empty)):
            raise SelfposError(f"{option} takes {form}, found '{word}'")
        if name in values:
            raise SelfposError(f"{option} gives {name} twice; keep one of them")
        values[name] = value
    return values


def options_of(model: type[BaseModel], *names: str, **renamed: str) -> Callable[[Function], Function]:
    """A decorator that adds one option for each named field of `model`, in this order.

    The option of `batch_size` is `--batch-size`; with `budget="memory"` that of `budget` is `--memory`. One
    that is not given arrives as None, or as an empty tuple where it may be repeated: `given` drops those.
    """

    def decorate(function: Function) -> Function:
        for name in reversed([*names, *renamed]):
            function = _option(model.model_fields[name], name, renamed.get(name, name))(function)
        return function

    return decorate


def given(values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` that the user gave."""
    return {name: value for name, value in values.items() if value not in (None, ())}


def _option(field: FieldInfo, name: str, shown: str) -> Callable[[Function], Function]:
    annotation, many = _plain(field.annotation)
    default = field.get_default(call_default_factory=True)
    text = field.description or ""
    text = text[:1].upper() + text[1:] + ("." if text and text[-1] not in ".]" else "")
    extra: dict[str, Any] = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    unit = int(extra.get("unit", 1))
    if default not in (None, "", [], {}, False):
        shown_default = default // unit if unit != 1 else default
        text = f"{text} [default: {shown_default}]".strip()
    flag = f"--{shown.replace('_', '-')}"
    if annotation is bool:
        return click.option(flag, name, is_flag=True, default=None, help=text)
    kind = _click_type(annotation, field) if unit == 1 else _InUnits(unit)
    return click.option(flag, name, multiple=many, type=kind, help=text)


class _InUnits(click.IntRange):
    """A whole number in a unit such as MB, for a field in bytes (`json_schema_extra={"unit": 1 << 20}`)."""

    def __init__(self, unit: int) -> None:
        super().__init__(min=1)
        self.unit = unit

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return int(super().convert(value, param, ctx)) * self.unit


def _plain(annotation: Any) -> tuple[Any, bool]:
    """The type of one value, and whether the option may be repeated: `list[int]` gives int and True."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not type(None))
    many = typing.get_origin(annotation) is list
    if many:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return annotation, many


def _click_type(annotation: Any, field: FieldInfo) -> click.ParamType | type[Any]:
    if typing.get_origin(annotation) is Literal:
        return click.Choice([str(value) for value in typing.get_args(annotation)])
    if annotation is Path:
        return PATH
    if annotation not in (int, float):
        return str
    limits: dict[str, Any] = {}
    for limit in field.metadata:
        limits |= {kind: getattr(limit, kind) for kind in ("ge", "gt", "le", "lt") if hasattr(limit, kind)}
    if not limits:
        return int if annotation is int else float
    bounds: dict[str, Any] = {
        "min": limits.get("ge", limits.get("gt")),
        "max": limits.get("le", limits.get("lt")),
        "min_open": "gt" in limits,
        "max_open": "lt" in limits,
    }
    return click.IntRange(**bounds) if annotation is int else click.FloatRange(**bounds)


def show_rows(rows: Sequence[tuple[str, str]]) -> None:
    """Print labels and texts, as a plan is shown."""
    for label, text in rows:
        click.echo(f"{label:<14}{text}")


def yaml_value(text: str) -> Any:
    """A word of the command line as a number, ramp, rules or word: as YAML reads it."""
    from selfpos.storage.documents import parse_yaml

    if text.startswith("*"):  # a pattern, where YAML would look for an anchor
        return text
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise SelfposError(
            f"cannot read the value '{text[:80]}' ({error}); rules are written like "
            "'{layers.0-5: 0.3, default: 1}'"
        ) from None


def parse_params(params: tuple[str, ...]) -> dict[str, Any]:
    """The values of `--param NAME=VALUE`, by name."""
    parsed: dict[str, Any] = {}
    for param in params:
        name, equals, value = param.partition("=")
        if not equals:
            raise SelfposError(f"--param takes NAME=VALUE, found '{param}'")
        name = name.replace("-", "_")
        if not value.strip():
            raise SelfposError(f"--param {name}= has no value; write {name}=VALUE, or leave it out")
        if name in parsed:
            raise SelfposError(f"--param gives {name} twice; keep one of them")
        parsed[name] = yaml_value(value)
        if parsed[name] is None:
            raise SelfposError(f"--param {name}={value} is YAML's word for no value; leave it out")
    return parsed
