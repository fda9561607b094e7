"""What drives tasks apart: gradients that conflict, vectors that dominate, lengths that go with the amount of
data; and which data sets belong together.
"""

from __future__ import annotations
