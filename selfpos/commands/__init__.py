"""One file per verb of the command line, each with a click command named `command`."""

from __future__ import annotations
