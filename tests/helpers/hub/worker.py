"""The warm command line of the publishing tests: the real Hub client, without waits between its tries."""

from __future__ import annotations

import time
import types

import huggingface_hub.file_download as downloads
import huggingface_hub.utils._http as http

from tests.helpers.worker import serve

# The client waits up to eight seconds between its tries; here it does not.
http.time = downloads.time = types.SimpleNamespace(
    **(vars(time) | {"sleep": lambda seconds: time.sleep(min(seconds, 0.02))})
)

if __name__ == "__main__":
    serve()
