"""The Hub client with a time limit, and with every failure as one sentence without the token."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from selfpos.errors import OperationError, SelfposError, first_line
from selfpos.version import __version__

if TYPE_CHECKING:
    import httpx2
    from huggingface_hub import HfApi

ANSWER_SECONDS = 120.0  # the Hub may take a minute for a large commit; the client would wait for ever
TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{16,}\b")
AGAIN = "the same command continues where this one stopped"


@contextmanager
def hub(doing: str, subject: str) -> Iterator[HfApi]:
    """The client for work on `subject`; what it raises is raised again as SelfposError or OperationError."""
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.utils import _http

    before = _http._GLOBAL_CLIENT_FACTORY

    def with_time_limit() -> httpx2.Client:
        client = before()
        client.timeout = httpx2.Timeout(ANSWER_SECONDS, connect=30)
        return client

    _http.set_client_factory(with_time_limit)
    try:
        yield HfApi(library_name="selfpos", library_version=__version__)
    except SelfposError:
        raise
    except (OSError, ValueError, LookupError, RuntimeError, httpx2.HTTPError) as error:
        raise explain(error, doing, subject) from None
    finally:
        _http.set_client_factory(before)


def explain(error: BaseException, doing: str, subject: str) -> SelfposError:
    """One sentence for what went wrong, from the error or the one that caused it."""
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    def stopped(reason: str) -> OperationError:
        return OperationError(f"{doing} stopped: {reason}; {AGAIN}")

    chain = _chain(error)
    for cause in chain:
        if isinstance(cause, LocalTokenNotFoundError):
            return SelfposError(
                "there is no Hugging Face access token; log in with `hf auth login` or set HF_TOKEN"
            )
        if isinstance(cause, OfflineModeIsEnabled):
            return SelfposError(f"{doing} needs the network, and HF_HUB_OFFLINE is set; unset it")
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            message = getattr(cause, "server_message", None) or ""
            return _answer(cause.response.status_code, message, _wait(cause.response), doing, subject)
        if isinstance(cause, httpx2.TimeoutException):
            return stopped(f"{constants.ENDPOINT} did not answer for {ANSWER_SECONDS:g} s")
        # The Xet client says the status only in its message.
        if xet := re.search(r"HTTP status \w+ error \((\d{3})", str(cause)):
            return _xet_answer(int(xet[1]), doing, subject)
        if isinstance(cause, json.JSONDecodeError | LookupError):
            return stopped(f"the answer of {constants.ENDPOINT} is not the Hub's")
        if isinstance(cause, httpx2.TransportError | ConnectionError):
            return stopped(f"the connection to {constants.ENDPOINT} failed ({_first_line(cause)})")
    return stopped(_first_line(chain[-1]))


def _xet_answer(status: int, doing: str, subject: str) -> SelfposError:
    if status == 400:
        reason = "the Hub's storage refused the data (status 400), as it does with damaged data"
        return OperationError(f"{doing} stopped: {reason}; {AGAIN}")
    return _answer(status, "", " a while", doing, subject)


def _answer(status: int, message: str, wait: str, doing: str, subject: str) -> SelfposError:
    """The sentence for an HTTP status, with the server's message if any."""
    message = hide(" ".join(message.split()).rstrip("."))
    words = f" ({message})" if message else ""
    storage = re.search(r"storage|quota|limit|exceed|too large", message, re.IGNORECASE)
    if status == 401:
        return SelfposError(
            f"the Hub does not accept the access token{words}; log in again with `hf auth login`, or fix "
            "HF_TOKEN"
        )
    if status == 403 and not storage:
        return SelfposError(
            f"the access token may not do this with {subject}{words}; use a token with write permission there"
        )
    if status == 404:
        return SelfposError(f"{subject} does not exist on the Hub, or the access token may not see it")
    reason = f"the Hub refused it with status {status}{words}"
    if status in (402, 403) or (status == 413 and storage):
        reason = f"the Hub has no room for it{words}; free space or ask for more, then {AGAIN}"
    elif status in (409, 412):
        reason = f"someone else changed {subject} at the same time{words}; {AGAIN}"
    elif status == 429:
        reason = f"the Hub accepts no more requests for now; wait{wait}, then {AGAIN}"
    elif status >= 500:
        reason = f"the Hub has a fault, status {status}{words}; try later, {AGAIN}"
    return OperationError(f"{doing} stopped: {reason}")


def _wait(response: httpx2.Response) -> str:
    limit = re.search(r"\bt=(\d+)", response.headers.get("ratelimit", ""))
    seconds = limit[1] if limit else response.headers.get("retry-after", "")
    return f" {seconds} s" if seconds.isdigit() else " a while"


def _chain(error: BaseException) -> list[BaseException]:
    """The error and its causes: the client wraps the failures of its upload threads."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    return chain


def _first_line(error: BaseException) -> str:
    """The message of `error` without tokens and without the address of the request, which is long."""
    return hide(re.sub(r" for url \([^)]*\)", "", first_line(error)))


def hide(text: str) -> str:
    """`text` without access tokens: the one in use and any that looks like one."""
    from huggingface_hub import get_token

    token = get_token()
    return TOKEN.sub("***", text.replace(token, "***") if token else text)
