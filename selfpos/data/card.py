"""The metadata of a data set of the Hub, in its README: which files are whose, and what its labels are
called.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, Field, ValidationError

from selfpos.data.files import LabelNames
from selfpos.errors import SelfposError
from selfpos.storage.documents import parse_yaml

METADATA = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
OF_A_DATA_SET = re.compile(r"^[\"']?(configs|dataset_info)[\"']?[ \t]*:", re.MULTILINE)
"""What the metadata of a data set has, and the front matter of a project or a page has not."""


def _mappings(value: Any) -> list[dict[str, Any]]:
    """The mappings in a list, or a single one; what else others write there says nothing to us."""
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, dict)]


def _in_order(names: Any) -> list[str]:
    """Names of labels as a list; a mapping has them by their numbers."""
    if isinstance(names, dict):
        numbered = {str(number): name for number, name in names.items()}
        if numbered.keys() != {str(number) for number in range(len(names))}:
            raise ValueError(f"labels are numbered {', '.join(numbered)[:200]}; expected 0, 1 and so on")
        names = [numbered[str(number)] for number in range(len(names))]
    return [str(name) for name in names] if isinstance(names, list) else []


Text = Annotated[str, BeforeValidator(str)]
Paths = Annotated[list[Text], BeforeValidator(lambda paths: paths if isinstance(paths, list) else [paths])]
NAMES = [AliasPath(kind, "class_label", "names") for kind in ("dtype", "list", "sequence")]


class Feature(BaseModel):
    name: Text = ""
    labels: Annotated[list[str], BeforeValidator(_in_order)] = Field(
        [], validation_alias=AliasChoices(*NAMES)
    )


class Info(BaseModel):
    config_name: Text = "default"
    features: Annotated[list[Feature], BeforeValidator(_mappings)] = []

    @property
    def labels(self) -> dict[str, list[str]]:
        """Column → the names of its labels."""
        return {feature.name: feature.labels for feature in self.features if feature.labels}


class DataFiles(BaseModel):
    split: Text = ""
    path: Paths = []


class Config(BaseModel):
    config_name: Text = "default"
    data_files: Annotated[list[DataFiles], BeforeValidator(_mappings)] = []


class Card(BaseModel):
    """What we read of it, by configuration."""

    configs: Annotated[list[Config], BeforeValidator(_mappings)] = []
    dataset_info: Annotated[list[Info], BeforeValidator(_mappings)] = []


Entry = TypeVar("Entry", Config, Info)


def read_card(folder: Path) -> Card:
    """The metadata of the README in `folder`; empty where there is none that speaks of files or labels.

    Raises SelfposError where that is not YAML, or numbers labels otherwise than from 0.
    """
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8-sig", errors="replace") if readme.is_file() else ""
    block = METADATA.match(text)
    try:
        metadata = parse_yaml(block[1]) if block and OF_A_DATA_SET.search(block[1]) else None
    except ValueError as error:
        raise SelfposError(f"{readme}: its metadata is not YAML: {error}; mend or remove it") from None
    try:
        return Card.model_validate(metadata) if isinstance(metadata, dict) else Card()
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        reason = fault["msg"].removeprefix("Value error, ")
        raise SelfposError(f"{readme}: its metadata, {where}: {reason}; mend or remove it") from None


def chosen(entries: list[Entry]) -> Entry | None:
    """The only configuration, or the one called default; None where there are several others."""
    named = {entry.config_name: entry for entry in entries}
    return entries[0] if len(named) == 1 else named.get("default")


def label_names(folder: Path) -> LabelNames:
    """The names of labels that the README of a data set of the Hub has, in `folder` or, by configuration, in
    the folder above. Several configurations in `folder` count where they agree.
    """
    folder = folder.absolute()
    infos = read_card(folder).dataset_info
    config = chosen(infos) or (
        infos[0] if infos and all(info.labels == infos[0].labels for info in infos) else None
    )
    if not config:
        above = read_card(folder.parent).dataset_info
        # in data/ are the files of the only configuration
        config = chosen([info for info in above if folder.name in ("data", info.config_name)])
    return config.labels if config else {}
