"""What a word says of a data set of the Hub."""

from __future__ import annotations

import pytest

from selfpos.data.hub import hub_address
from selfpos.errors import SelfposError


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("hub:mteb/banking77", ("mteb/banking77", None, None)),
        ("hub:nyu-mll/glue:mrpc", ("nyu-mll/glue", "mrpc", None)),
        ("hub:nyu-mll/glue:mrpc@abc123", ("nyu-mll/glue", "mrpc", "abc123")),
        ("hub:mteb/banking77@refs/pr/1", ("mteb/banking77", None, "refs/pr/1")),
        ("hub:mteb/banking77:@", ("mteb/banking77", None, None)),
        ("data/hub:x", None),
        ("corpus", None),
    ],
)
def test_an_address_has_name_configuration_and_revision(
    source: str, address: tuple[str, str | None, str | None] | None
) -> None:
    assert hub_address(source) == address


@pytest.mark.parametrize("source", ["hub:", "hub::mrpc", "hub:@main"])
def test_an_address_without_a_name_is_refused(source: str) -> None:
    with pytest.raises(SelfposError, match="no data set is named"):
        hub_address(source)
