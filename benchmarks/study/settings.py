"""What the study compares: tasks, settings, lengths of training."""

from __future__ import annotations

from dataclasses import dataclass, field

BATCH = 24
LEARNING_RATE = 5e-5
MAX_LENGTH = 64
FIVE = ("sts", "classification", "clustering", "pair-classification", "reranking")
EIGHT = (*FIVE, "retrieval", "summarization", "instruction-retrieval")

#: task → (type, folder of the data, split to train on, records of the probe)
SOURCES = {
    "sts": ("sts", "stsbenchmark", "train", 96),
    "classification": ("classification", "banking77", "train", 192),
    # one file; its last titles are our test
    "clustering": ("clustering", "stackoverflow_short", "test", 192),
    "pair-classification": ("pair-classification", "mrpc", "train", 96),
    "reranking": ("reranking", "wikiqa", "train", 96),
    "retrieval": ("retrieval", "medquad", "train", 96),
    "summarization": ("summarization", "pubmedqa_l", "train", 96),
    "instruction-retrieval": ("instruction-retrieval", "feedbackqa", "train", 96),
}


@dataclass(frozen=True)
class Setting:
    """One setting of the study.

    Attributes:
        steps: task → steps of its specialist.
        sizes: task → training records at most; all when absent.
        strays: vectors that no task of the tests wants: name → steps.
        rate: the learning rate of the specialists and of the joint models.
    """

    steps: dict[str, int]
    sizes: dict[str, int] = field(default_factory=dict)
    strays: dict[str, int] = field(default_factory=dict)
    rate: float = LEARNING_RATE

    @property
    def draws(self) -> int:
        """Records that the specialists draw, which joint models draw as well."""
        return BATCH * sum([*self.steps.values(), *self.strays.values()])


#: records of a task, 1 to 50
UNEQUAL = {
    "sts": 4800,
    "classification": 1440,
    "clustering": 1440,
    "pair-classification": 288,
    "reranking": 96,
}
SETTINGS = {
    "five-tasks": Setting(dict.fromkeys(FIVE, 60)),
    "eight-types": Setting(dict.fromkeys(EIGHT, 100)),
    "unequal": Setting(
        {"sts": 200, "classification": 60, "clustering": 60, "pair-classification": 12, "reranking": 4},
        sizes=UNEQUAL,
    ),
    "unequal-sizes": Setting(dict.fromkeys(FIVE, 67), sizes=UNEQUAL),  # as often as a joint round robin
    "useless-and-harmful": Setting(dict.fromkeys(FIVE, 60), strays={"useless": 60, "harmful": 60}),
    **{f"budget-{steps}": Setting(dict.fromkeys(FIVE, steps)) for steps in (15, 30, 120, 240)},
    **{f"rate-{rate:.0e}": Setting(dict.fromkeys(FIVE, 60), rate=rate) for rate in (1e-4, 2e-4)},
}
JOINT = {
    "joint-round-robin": {"mixture": "round-robin"},
    "joint-on-probe": {"mixture": "round-robin"},
    "joint-proportional": {"mixture": "proportional"},
    "joint-temperature": {"mixture": "temperature"},
    "joint-pcgrad": {"surgery": "pcgrad"},
}
