"""Data sets of the Hugging Face Hub: their address, the commit that is read, and faults in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from selfpos.errors import OperationError, SelfposError, on_one_line


class HubAddress(NamedTuple):
    """A data set on the Hub: its default configuration and newest revision where these are None."""

    name: str
    config: str | None
    revision: str | None


def hub_address(source: str) -> HubAddress | None:
    """What `hub:NAME[:CONFIG][@REVISION]` names; None for another source.

    Raises SelfposError where it names no data set.
    """
    if not source.startswith("hub:"):
        return None
    address, _, revision = source.removeprefix("hub:").partition("@")
    name, _, config = address.partition(":")
    if not name:
        raise SelfposError("no data set is named; expected 'hub:NAME[:CONFIG][@REVISION]'")
    return HubAddress(name, config or None, revision or None)


@contextmanager
def answers_of_hub(name: str, split: str, *, connected: bool) -> Iterator[None]:
    """A block that reads `split` of the data set `name`; what the Hub, the network and `datasets` raise
    there is raised again as OperationError.

    Unless `connected`, only the cache is asked: the libraries would try the Hub again for minutes.
    """
    import datasets
    import httpx2
    from huggingface_hub import constants

    before = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    if not connected:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    try:
        yield
    except (OSError, ValueError, LookupError, httpx2.HTTPError) as error:
        reason = on_one_line(error, 300)
        if not connected:
            why = "HF_HUB_OFFLINE is set" if any(before) else "there is no connection to it"
            reason = f"{why}, and the cache has nothing of it; name a folder with the data instead"
        raise OperationError(
            f"the Hugging Face Hub did not supply data set {name}, split '{split}': {reason}"
        ) from None
    finally:
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = before


def commit_of(name: str, revision: str | None) -> tuple[str | None, bool]:
    """The commit of `revision` of the data set `name` (the newest when None), and whether the Hub answers;
    where it does not say the commit, `revision` itself.
    """
    import httpx2
    from huggingface_hub import dataset_info
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return dataset_info(name, revision=revision).sha, True
    except (OSError, ValueError, httpx2.HTTPError) as error:
        return revision, isinstance(error, HfHubHTTPError | ValueError)
