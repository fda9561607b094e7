"""How given coefficients become weights: the streaming engine, and its methods in `methods/`."""

from __future__ import annotations

from selfpos.merging import methods  # registers every method
from selfpos.merging.merge import MergeResult, execute, merge
from selfpos.merging.method import METHODS, Method, get_method
from selfpos.merging.plan import Plan, plan

__all__ = ["METHODS", "MergeResult", "Method", "Plan", "execute", "get_method", "merge", "methods", "plan"]
