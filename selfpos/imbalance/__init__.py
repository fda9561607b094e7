"""The companion study: class imbalance in convolutional networks (Buda, Maki, Mazurowski 2018, arXiv
1710.05381), its later rivals, and text.
"""

from __future__ import annotations
