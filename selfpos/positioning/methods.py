"""The merge methods that search: published ways of learning coefficients, each a preset of the settings."""

from __future__ import annotations

from dataclasses import dataclass

from selfpos.recipe import LEARNED, PositioningSettings


@dataclass(frozen=True)
class Learned:
    """One method that learns coefficients on a probe set.

    The first line of `doc` is its summary; `settings` are the fields that one may want to change.
    """

    name: str
    reference: str
    doc: str
    settings: tuple[str, ...]
    fewest: int = 1
    most: int | None = None

    @property
    def summary(self) -> str:
        return self.doc.partition("\n")[0]

    @property
    def needs(self) -> str:
        passes = "forward and backward" if self.preset.search == "sgd" else "forward"
        package = ", the package cma" if self.preset.search == "cma-es" else ""
        return f"a probe set ({passes} passes){package}"

    @property
    def preset(self) -> PositioningSettings:
        return PositioningSettings(preset=LEARNED[self.name])

    @property
    def parameters(self) -> list[str]:
        """The settings and their values, as `selfpos methods` shows the parameters of others."""
        return [f"{field}={getattr(self.preset, field)}" for field in self.settings]


_METHODS = (
    Learned(
        "self-positioning",
        "https://arxiv.org/abs/2410.15035",
        """Self Positioning: coefficients that minimise the losses of the merged model on the probe set.

θ = θ0 + Σ c_i V_i; here the V_i are first made to interfere less with each other (as by wudi), and the c_i
are pulled to one tuned scale for all, by a trust-region method on linearised embeddings, the pull chosen by
cross-validation; with `preset: paper` the chain of SLERPs
V_p = λ · slerp(V_1..V_N; a_1..a_N) by stochastic gradient descent on L + μ λ.

Source: Li et al. 2024, arXiv 2410.15035. See positioning/space.py, separated.py and linearised.py.
Prefer it wherever there is a probe set of a hundred records a task or more.""",
        ("search", "separate", "space", "granularity", "rounds"),
    ),
    Learned(
        "lm-cocktail",
        "https://arxiv.org/abs/2311.13534",
        """LM-Cocktail: weights by a softmax of each specialist's loss on a handful of examples.

c = softmax(−L_i / T) with T = 5, L_i the mean over tasks of the loss of specialist i on five records of each;
the c_i sum to 1. See positioning/searches.py.

Source: Xiao et al. 2024, arXiv 2311.13534, equation 2. Prefer it when there are a handful of examples only,
or no time to search: one forward pass a specialist. The weights hardly leave the mean unless losses differ by
more than 1.""",
        ("temperature",),
    ),
    Learned(
        "layer-wise",
        "https://arxiv.org/abs/2412.10416",
        """Layer-wise: a coefficient for every layer and vector, by gradient descent on the probe losses.

θ_l = θ0_l + Σ c_il V_il for layer l. SuperMerge bounds c = tanh(w); here c is free, and held back by a price
on the distance to the model's coefficient.

Source: Yang et al. 2024 (SuperMerge), arXiv 2412.10416; the supervised counterpart of AdaMerging's entropy,
arXiv 2310.02575. Prefer it to one coefficient a model when the probe has some hundred records a task: it has
many more coefficients.""",
        ("steps", "learning_rate"),
    ),
    Learned(
        "cma-es",
        "https://arxiv.org/abs/1604.00772",
        """CMA-ES: coefficients by an evolution strategy on the probe loss.

Candidates c ~ N(m, σ² C); mean, step and covariance follow the better half of each generation. See
positioning/searches.py.

Source: Hansen 2016, arXiv 1604.00772, by the library `cma`; for merging, Akiba et al. 2024, arXiv 2403.13187.
Prefer it for few coefficients and losses without a gradient: its cost is `evaluations` passes over the
probe.""",
        ("evaluations",),
        fewest=2,
    ),
)
METHODS: dict[str, Learned] = {method.name: method for method in _METHODS}
