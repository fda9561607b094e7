"""The recipe of an imbalance study: data, network, grid, methods and training, as typed and validated
settings.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from selfpos.imbalance.study import schedules
from selfpos.imbalance.study.profiles import place_of
from selfpos.recipe import Name, Settings, load_settings

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Numbers(Settings):
    """Settings whose numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


def refuse_idle(settings: Settings, names: Iterable[str], why: str) -> None:
    """Raise ValueError when one of the fields `names`, which do nothing here, was given another value than
    its default.

    The default itself says nothing: recipes that results hold tell all their fields.
    """
    if given := [
        name for name in names if getattr(settings, name) != type(settings).model_fields[name].default
    ]:
        raise ValueError(
            f"{' and '.join(repr(name) for name in given)} would do nothing with {why}; leave it out"
        )


class ScheduleSettings(Numbers):
    """Caffe's learning-rate policy."""

    policy: Literal["fixed", "inv", "multistep", "poly"] = "fixed"
    gamma: float = Field(1e-4, gt=0, description="of inv")
    power: float = Field(0.75, gt=0, description="of inv and poly")
    drops: list[Share] = Field(
        default_factory=list, description="of multistep: shares of the iterations at which the rate falls"
    )
    factor: float = Field(0.1, gt=0, description="of multistep: what the rate is multiplied with at a drop")

    @model_validator(mode="after")
    def _drops_belong_to_multistep(self) -> ScheduleSettings:
        if (self.policy == "multistep") != bool(self.drops):
            raise ValueError(
                f"'drops' belong to policy multistep, which needs them; found policy {self.policy} with "
                f"drops {self.drops}"
            )
        return self

    @model_validator(mode="after")
    def _numbers_belong_to_their_policy(self) -> ScheduleSettings:
        used = {"inv": {"gamma", "power"}, "poly": {"power"}, "multistep": {"factor"}, "fixed": set[str]()}[
            self.policy
        ]
        refuse_idle(
            self, [name for name in ("gamma", "power", "factor") if name not in used], f"policy {self.policy}"
        )
        return self

    def over(self, iterations: int) -> schedules.Schedule:
        """The schedule for a training of `iterations` steps."""
        if self.policy == "inv":
            return schedules.inverse(self.gamma, self.power)
        if self.policy == "multistep":
            return schedules.steps([round(drop * iterations) for drop in self.drops], self.factor)
        return schedules.polynomial(iterations, self.power) if self.policy == "poly" else schedules.constant()


class TrainingSettings(Numbers):
    """How every network is trained; the number of iterations is the same for all methods."""

    iterations: int = Field(10_000, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rates: list[Positive] = Field(
        default_factory=lambda: [0.01], min_length=1, description="base rates of SGD; several are a search"
    )
    adamw_rates: list[Positive] = Field(
        default_factory=lambda: [1e-3], min_length=1, description="base rates of the method adamw"
    )
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(
        5e-4, ge=0, description="of SGD, on all weights, biases included, as Caffe has it"
    )
    adamw_decay: float = Field(0.01, ge=0, description="of AdamW, apart from the gradient, on all weights")
    bias_rate: float = Field(1.0, gt=0, description="factor of the biases' learning rate (Caffe's lr_mult)")
    schedule: ScheduleSettings = ScheduleSettings()
    second_iterations: int | None = Field(
        None,
        ge=1,
        description="length of a second stage (two-phase, cRT, LWS, SMOTE); as the first when absent",
    )
    second_rate: float = Field(0.1, gt=0, description="factor of two-phase's base rate in its second stage")

    @property
    def second_stage(self) -> int:
        """Iterations of a second stage."""
        return self.second_iterations or self.iterations

    @model_validator(mode="after")
    def _sgd_has_settings_of_its_own(self) -> TrainingSettings:
        if self.optimizer == "adamw":
            refuse_idle(self, ("momentum", "weight_decay"), "optimizer adamw")
        return self


class GridSettings(Numbers):
    """One rectangle of the grid: a profile with its ratios (and, for step, shares of minority classes) and
    the methods run on it.
    """

    profile: Literal["step", "linear", "exp", "balanced"]
    rho: list[Annotated[float, Field(ge=1)]] = Field(default_factory=lambda: [1.0], min_length=1)
    mu: list[Share] | None = None
    methods: list[str] | None = Field(None, description="those of the recipe when absent")
    minority: Literal["random", "lowest", "highest"] | list[int] | None = Field(
        None, description="the recipe's when absent"
    )
    seeds: int | None = Field(
        None, ge=1, description="the first of the recipe's seeds that are run here; all when absent"
    )

    @model_validator(mode="after")
    def _mu_belongs_to_step(self) -> GridSettings:
        if (self.profile == "step") != bool(self.mu):
            raise ValueError(
                f"'mu' belongs to profile step, which needs it; found profile {self.profile} with mu "
                f"{self.mu}"
            )
        if self.profile == "balanced" and self.rho != [1]:
            raise ValueError(f"profile balanced has no ratio; found rho {self.rho}")
        return self


class ImbalanceRecipe(Numbers):
    """A whole study."""

    name: Name
    data: str = Field(description="a folder of images, or hub:NAME[:CONFIG][@REVISION]; --data replaces it")
    preprocessing: Literal["scale", "gcn-zca", "raw"] = "scale"
    network: Literal["lenet", "all-cnn", "cifar-quick", "resnet-10", "head", "encoder"] = Field(
        description="head: a linear layer on the embeddings of `encoder`; encoder: that one fine-tuned with it; both for texts, see `compare text`"
    )
    encoder: str | None = Field(
        None, description="of texts: a sentence-transformers folder or a name on the Hub"
    )
    n_max: int = Field(ge=2, description="training images of the largest class")
    validation: int = Field(
        0, ge=0, description="training images per class kept back to select on; never trained on"
    )
    test: Literal["official", "balanced"] = Field(
        "official", description="balanced: as many test images of every class as the rarest has"
    )
    test_limit: int | None = Field(None, ge=1, description="test images per class at most")
    train_scored: int = Field(
        200, ge=1, description="training images per class that the train-test gap is measured on, at most"
    )
    minority: Literal["random", "lowest", "highest"] | list[int] = "random"
    grid: list[GridSettings] = Field(min_length=1)
    methods: list[str] = Field(
        default_factory=lambda: ["baseline", "ros", "rus", "two-phase-ros", "two-phase-rus"], min_length=1
    )
    seeds: int = Field(5, ge=1, description="repetitions: seeds 0, 1, …")
    select: Literal["validation", "test"] = Field(
        "validation", description="what the best of several learning rates is chosen on"
    )
    networks_at_once: int = Field(
        5, ge=1, description="seeds of one cell that a GPU trains as one wide network"
    )
    curve_every: int | None = Field(
        None, ge=1, description="iterations between points of the learning curves"
    )
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _texts_have_an_encoder(self) -> ImbalanceRecipe:
        if (self.network in ("head", "encoder")) != (self.encoder is not None):
            raise ValueError(
                f"'encoder' goes with network head or encoder, found network {self.network} with encoder "
                f"{self.encoder}"
            )
        return self

    @model_validator(mode="after")
    def _texts_are_not_preprocessed(self) -> ImbalanceRecipe:
        if self.encoder is not None:
            refuse_idle(self, ("preprocessing",), "texts")
        return self

    @model_validator(mode="after")
    def _selection_has_a_set(self) -> ImbalanceRecipe:
        adamw = "adamw" in {
            name
            for methods in (self.methods, *(part.methods or [] for part in self.grid))
            for name in methods
        }
        rates = {
            "learning_rates": self.training.learning_rates,
            "adamw_rates": self.training.adamw_rates if adamw else [],
        }
        if several := [
            name
            for name, values in rates.items()
            if len(values) > 1 and self.select == "validation" and not self.validation
        ]:
            raise ValueError(
                f"'select: validation' with several {' and '.join(several)} needs 'validation' > 0"
            )
        return self

    @model_validator(mode="after")
    def _one_minority_per_point(self) -> ImbalanceRecipe:
        found: dict[tuple[str, float, float | None], object] = {}
        for part in self.grid:
            minority = part.minority if part.minority is not None else self.minority
            shares: list[float | None] = [*part.mu] if part.mu else [None]
            for place in product([part.profile], part.rho, shares):
                if found.setdefault(place, minority) != minority:
                    raise ValueError(
                        f"{place_of(*place)} is in the grid with the minorities {found[place]} and "
                        f"{minority}, which are two studies; make it two recipes"
                    )
        return self


def load_imbalance_recipe(path: Path) -> ImbalanceRecipe:
    """Read and validate the recipe at `path`. Raises SelfposError naming each wrong field."""
    return load_settings(path, ImbalanceRecipe)
