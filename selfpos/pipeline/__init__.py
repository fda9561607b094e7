"""A recipe as a graph of resumable jobs."""

from __future__ import annotations
