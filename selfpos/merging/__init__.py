"""How given coefficients become weights: the streaming engine and its methods, one file each in `methods/`."""

from __future__ import annotations

from selfpos.merging import methods  # registers every method
from selfpos.merging.merge import MergeResult, execute, merge
from selfpos.merging.plan import Plan, plan
from selfpos.merging.registry import METHODS, Method, get_method

__all__ = ["METHODS", "MergeResult", "Method", "Plan", "execute", "get_method", "merge", "methods", "plan"]
