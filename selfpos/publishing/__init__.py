"""Publishing: the model card, and the Hugging Face Hub."""

from __future__ import annotations
