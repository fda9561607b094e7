"""The study of class imbalance in CNNs."""

from __future__ import annotations
