"""One file per verb of the command line; each defines `command`. Only click is imported before a verb does its work."""

from __future__ import annotations
