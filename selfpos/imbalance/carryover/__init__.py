"""What the study of class imbalance says about merging and about texts: one file a comparison, above all the
rooms that they call.
"""

from __future__ import annotations
