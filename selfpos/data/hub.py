"""Data sets of the Hugging Face Hub: the commit that is read, and its faults in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selfpos.errors import OperationError, on_one_line


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
    """The commit of `revision` of the data set `name` (the newest when None), None where the Hub does not
    say; and whether the Hub answers.
    """
    import httpx2
    from huggingface_hub import dataset_info
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return dataset_info(name, revision=revision).sha, True
    except (OSError, ValueError, httpx2.HTTPError) as error:
        return None, isinstance(error, HfHubHTTPError | ValueError)
