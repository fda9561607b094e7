"""The comparisons that carry the study over to merging and to text: one file, one command each."""

from __future__ import annotations
