"""How much of a fine-tune may be kept: the front between what it learned and what it forgot."""

from __future__ import annotations
