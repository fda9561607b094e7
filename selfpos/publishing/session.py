"""The Hub client as publishing uses it: with a limit on waiting, and every failure told in one sentence without the token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from selfpos.errors import OperationError, SelfposError
from selfpos.version import __version__

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

ANSWER_SECONDS = 120.0  # the Hub may take a minute over a large commit; the client itself would wait for ever
TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}\b")
AGAIN = "the same command continues where this one stopped"


@contextmanager
def hub(doing: str, subject: str) -> Iterator[HfApi]:
    """Yield the client while something is done with `subject`, a repository or collection.

    Whatever the client raises is raised again as SelfposError (wrong token, no permission, not allowed) or OperationError (all else).
    """
    import httpx2
    from huggingface_hub import HfApi

    with _patient_client():
        try:
            yield HfApi(library_name="selfpos", library_version=__version__)
        except SelfposError:
            raise
        except (OSError, ValueError, LookupError, RuntimeError, httpx2.HTTPError) as error:
            raise explain(error, doing, subject) from None


@contextmanager
def _patient_client() -> Iterator[None]:
    """Give the client of `huggingface_hub` a time limit while the block runs; it has none of its own."""
    import httpx2
    from huggingface_hub.utils import _http

    before = _http._GLOBAL_CLIENT_FACTORY

    def factory() -> httpx2.Client:
        client = before()
        client.timeout = httpx2.Timeout(ANSWER_SECONDS, connect=30)
        return client

    _http.set_client_factory(factory)
    try:
        yield
    finally:
        _http.set_client_factory(before)


def explain(error: BaseException, doing: str, subject: str) -> SelfposError:
    """The one sentence for what went wrong, told from the error or from the one that caused it."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    chain = _chain(error)
    for cause in chain:
        if isinstance(cause, LocalTokenNotFoundError):
            return SelfposError(
                "there is no Hugging Face access token; log in with `hf auth login` or set HF_TOKEN"
            )
        if isinstance(cause, OfflineModeIsEnabled):
            return SelfposError(f"{doing} needs the network, and HF_HUB_OFFLINE is set; unset it")
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            said = getattr(cause, "server_message", None) or ""
            return _answer(cause.response.status_code, said, _wait(cause.response), doing, subject)
        if isinstance(cause, httpx2.TimeoutException):
            return OperationError(
                f"{doing} stopped: {constants.ENDPOINT} did not answer for {ANSWER_SECONDS:g} s; {AGAIN}"
            )
        if found := re.search(
            r"HTTP status \w+ error \((\d{3})", str(cause)
        ):  # of the Xet client, which has no other way to tell it
            if found[1] == "400":
                refused = "the Hub's storage refused what arrived there (status 400), as it does with what was damaged on its way"
                return OperationError(f"{doing} stopped: {refused}; {AGAIN}")
            return _answer(int(found[1]), "", " a while", doing, subject)
        if isinstance(cause, json.JSONDecodeError | LookupError):
            return OperationError(
                f"{doing} stopped: what {constants.ENDPOINT} answered is no answer of the Hub's; {AGAIN}"
            )
        if isinstance(cause, httpx2.TransportError | ConnectionError):
            return OperationError(
                f"{doing} stopped: the connection to {constants.ENDPOINT} failed ({hide(_first_line(cause))}); {AGAIN}"
            )
    return OperationError(f"{doing} stopped: {hide(_first_line(chain[-1]))}; {AGAIN}")


def _answer(status: int, message: str, wait: str, doing: str, subject: str) -> SelfposError:
    """The sentence for an HTTP status, with the server's own words where it gives any."""
    said = hide(" ".join(message.split()).rstrip("."))
    words = f" ({said})" if said else ""
    if status == 401:
        return SelfposError(
            f"the Hub does not accept the access token{words}; log in again with `hf auth login`, or mend HF_TOKEN"
        )
    if status == 402 or (
        status in (403, 413) and re.search(r"storage|quota|limit|exceed|too large", said, re.IGNORECASE)
    ):
        return OperationError(
            f"{doing} stopped: the Hub has no room for it{words}; free space or ask for more, then {AGAIN}"
        )
    if status == 403:
        return SelfposError(
            f"the access token may not do this with {subject}{words}; use a token with write permission there"
        )
    if status == 404:
        return SelfposError(f"{subject} does not exist on the Hub, or the access token may not see it")
    if status in (409, 412):
        return OperationError(
            f"{doing} stopped: {subject} was changed by someone else at the same time{words}; {AGAIN}"
        )
    if status == 429:
        return OperationError(
            f"{doing} stopped: the Hub takes no more requests for now; wait{wait}, then {AGAIN}"
        )
    if status >= 500:
        return OperationError(
            f"{doing} stopped: the Hub has a fault of its own, status {status}{words}; try later, {AGAIN}"
        )
    return OperationError(f"{doing} stopped: the Hub refused it with status {status}{words}")


def _wait(response: httpx2.Response) -> str:
    limit = re.search(r"\bt=(\d+)", response.headers.get("ratelimit", ""))
    seconds = limit[1] if limit else response.headers.get("retry-after", "")
    return f" {seconds} s" if seconds.isdigit() else " a while"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what it was raised from: the client wraps the failures of its upload threads."""
    found: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in found:
        found.append(cause)
        cause = cause.__cause__ or cause.__context__
    return found


def _first_line(error: BaseException) -> str:
    """What `error` says, without the address of the request, which is long and of no use to the user."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return re.sub(r" for url \([^)]*\)", "", line)


def hide(text: str) -> str:
    """`text` without access tokens, the one in use and any that looks like one."""
    from huggingface_hub import get_token

    token = get_token()
    return TOKEN.sub("***", text.replace(token, "***") if token else text)
