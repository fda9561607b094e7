"""Data sets of the Hugging Face Hub: the commit that is read, and its faults in one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selfpos.errors import OperationError, on_one_line


@contextmanager
def answers_of_hub(name: str, split: str) -> Iterator[None]:
    """A block that reads `split` of the data set `name`; what the Hub, the network and `datasets` raise
    there is raised again as OperationError.
    """
    import httpx2

    try:
        yield
    except (OSError, ValueError, LookupError, httpx2.HTTPError) as error:
        remedy = ""
        if isinstance(error, httpx2.TransportError | ConnectionError):
            remedy = (
                "; without a connection only what was fetched before can be read: download the data set "
                "elsewhere, and name its folder"
            )
        raise OperationError(
            f"the Hugging Face Hub did not supply data set {name}, split '{split}': "
            f"{on_one_line(error, 300)}{remedy}"
        ) from None


def commit_of(name: str, revision: str | None) -> str | None:
    """The commit of `revision` of the data set `name` (the newest when None); None where the Hub does not
    answer.
    """
    import httpx2
    from huggingface_hub import dataset_info

    try:
        return dataset_info(name, revision=revision).sha
    except (OSError, ValueError, httpx2.HTTPError):
        return None
