"""Figures of the space that the task vectors span: norms and angles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from selfpos.report.drawing import matrix
from selfpos.report.results import RunResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def angles(results: RunResults) -> Figure:
    """Angles between the task vectors in degrees, coloured by how far they are from 90°, and their norms on the diagonal."""
    import numpy as np

    from selfpos.vectors import norms_and_cosines

    norms, cosines = norms_and_cosines(np.array(results.gram))
    degrees = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    texts = [[f"{value:.1f}°" for value in row] for row in degrees]
    for place, norm in enumerate(norms):
        texts[place][place] = f"‖V‖\n{norm:.3g}"
    np.fill_diagonal(degrees, np.nan)
    reach = max(10.0, float(np.nanmax(np.abs(degrees - 90), initial=0.0)))
    return matrix(
        degrees, results.vectors, results.vectors, texts, colours="RdBu", low=90 - reach, high=90 + reach
    )
