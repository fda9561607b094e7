"""The recipe of an imbalance study: data, network, grid, methods and training, as validated settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from selfpos.imbalance.study.sampling import Minority, Profile
from selfpos.recipe import Name, Settings, load_settings
from selfpos.recipe.shipped import find_recipe

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, lt=1)]
Rates = Annotated[list[Positive], Field(min_length=1)]


class Numbers(Settings):
    """Settings whose numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)

    def refuse_unused(self, names: Iterable[str], why: str) -> None:
        """Raise ValueError when a field without effect has not its default, which recipes in results files
        hold.
        """
        fields = type(self).model_fields
        if set_fields := [repr(name) for name in names if getattr(self, name) != fields[name].default]:
            raise ValueError(f"{' and '.join(set_fields)} would do nothing with {why}; leave it out")


class ScheduleSettings(Numbers):
    """Caffe's learning-rate policy."""

    policy: Literal["fixed", "inv", "multistep", "poly"] = "fixed"
    gamma: float = Field(1e-4, gt=0, description="of inv")
    power: float = Field(0.75, gt=0, description="of inv and poly")
    drops: list[Share] = Field(default=[], description="of multistep: shares of the iterations before drops")
    factor: float = Field(0.1, gt=0, description="of multistep: the rate is multiplied with it at a drop")

    @model_validator(mode="after")
    def _numbers_belong_to_their_policy(self) -> ScheduleSettings:
        if (self.policy == "multistep") != bool(self.drops):
            raise ValueError(
                f"'drops' belong to policy multistep, which needs them; found {self.policy} and {self.drops}"
            )
        users = {"gamma": ("inv",), "power": ("inv", "poly"), "factor": ("multistep",)}
        unused = [name for name, policies in users.items() if self.policy not in policies]
        self.refuse_unused(unused, f"policy {self.policy}")
        return self

    def over(self, iterations: int) -> Callable[[int], float]:
        """The rate as a multiple of the base rate, by iteration t, for a training of `iterations` steps."""
        if self.policy == "inv":
            return lambda t: (1 + self.gamma * t) ** -self.power
        if self.policy == "multistep":
            drops = [round(drop * iterations) for drop in self.drops]
            return lambda t: self.factor ** sum(t >= drop for drop in drops)
        if self.policy == "poly":
            return lambda t: (1 - t / iterations) ** self.power
        return lambda t: 1.0


class TrainingSettings(Numbers):
    """How every network is trained; the number of iterations is the same for all methods."""

    iterations: int = Field(10_000, ge=1)
    batch_size: int = Field(64, ge=2)
    learning_rates: Rates = Field(default=[0.01], description="base rates; several are a search")
    adamw_rates: Rates = Field(default=[1e-3], description="base rates of the method adamw")
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(5e-4, ge=0, description="of SGD, on all weights and biases, as in Caffe")
    adamw_decay: float = Field(0.01, ge=0, description="of AdamW, decoupled, on all weights and biases")
    bias_rate: float = Field(1.0, gt=0, description="factor of the biases' learning rate (Caffe's lr_mult)")
    schedule: ScheduleSettings = ScheduleSettings()
    second_iterations: int | None = Field(
        None, ge=1, description="of a second stage (two-phase, cRT, LWS, SMOTE); as the first when absent"
    )
    second_rate: float = Field(0.1, gt=0, description="factor of two-phase's base rate in its second stage")

    @property
    def second_stage(self) -> int:
        return self.second_iterations or self.iterations

    @model_validator(mode="after")
    def _sgd_has_settings_of_its_own(self) -> TrainingSettings:
        if self.optimizer == "adamw":
            self.refuse_unused(("momentum", "weight_decay"), "optimizer adamw")
        return self


class GridSettings(Numbers):
    """One rectangle of the grid: a profile with its ratios and minority shares, and the methods run on it."""

    profile: Profile
    rho: list[Annotated[float, Field(ge=1)]] = Field(default=[1.0], min_length=1)
    mu: list[Share] | None = Field(None, description="of step: shares of minority classes")
    methods: list[str] | None = Field(None, description="those of the recipe when absent")
    seeds: int | None = Field(None, ge=1, description="the first so many of the recipe's seeds; else all")

    @model_validator(mode="before")
    @classmethod
    def _minority_is_the_recipes(cls, data: Any) -> Any:
        """Results of version 0.1 hold the field `minority`, empty."""
        if not isinstance(data, dict):
            return data
        if data.get("minority") is not None:
            raise ValueError("'minority' of a part of the grid was removed in 0.2; set the recipe's")
        return {name: value for name, value in data.items() if name != "minority"}

    @model_validator(mode="after")
    def _ratios_belong_to_the_profile(self) -> GridSettings:
        if (self.profile == "step") != bool(self.mu):
            raise ValueError(
                f"'mu' belongs to profile step, which needs it; found {self.profile} with mu {self.mu}"
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
        description="of texts: head is a linear layer on the embeddings of `encoder`, encoder fine-tunes both"
    )
    encoder: str | None = Field(None, description="of texts: a sentence-transformers folder or a Hub name")
    n_max: int = Field(ge=2, description="training images of the largest class")
    validation: int = Field(0, ge=0, description="training images per class kept back to select on")
    test: Literal["official", "balanced"] = Field(
        "official", description="balanced: as many test images of every class as the rarest has"
    )
    test_limit: int | None = Field(None, ge=1, description="test images per class at most")
    train_scored: int = Field(200, ge=1, description="training images per class for the train-test gap")
    minority: Minority = "random"
    grid: list[GridSettings] = Field(min_length=1)
    methods: list[str] = Field(
        default=["baseline", "ros", "rus", "two-phase-ros", "two-phase-rus"], min_length=1
    )
    seeds: int = Field(5, ge=1, description="repetitions: seeds 0, 1, …")
    select: Literal["validation", "test"] = Field("validation", description="learning rates are chosen on it")
    networks_at_once: int = Field(5, ge=1, description="seeds that a GPU trains as one wide network")
    curve_every: int | None = Field(None, ge=1, description="iterations between points of learning curves")
    training: TrainingSettings = TrainingSettings()

    @model_validator(mode="after")
    def _texts_have_an_encoder(self) -> ImbalanceRecipe:
        if (self.network in ("head", "encoder")) != (self.encoder is not None):
            raise ValueError(
                f"'encoder' goes with network head or encoder, found {self.network} with {self.encoder}"
            )
        if self.encoder is not None:
            self.refuse_unused(["preprocessing"], "texts")
        return self

    @model_validator(mode="after")
    def _selection_has_a_set(self) -> ImbalanceRecipe:
        if self.validation or self.select == "test":
            return self
        searched = {"learning_rates": self.training.learning_rates}
        if any("adamw" in (part.methods or self.methods) for part in self.grid):
            searched["adamw_rates"] = self.training.adamw_rates
        if several := [name for name, rates in searched.items() if len(rates) > 1]:
            raise ValueError(f"'select: validation' with several {' and '.join(several)} needs 'validation'")
        return self


def load_imbalance_recipe(path: Path) -> ImbalanceRecipe:
    """Read and validate the recipe at `path`, or the one of that name that comes with the package.

    Raises SelfposError naming each wrong field.
    """
    return load_settings(find_recipe(path, "imbalance"), ImbalanceRecipe)
