"""ROS and RUS: random minority oversampling and random majority undersampling, to full balance or (`ros:R`, `rus:R`) to the ratio R."""

from __future__ import annotations

from selfpos.imbalance.study.methods.registry import Method, register
from selfpos.imbalance.study.sampling import oversample, undersample

SOURCE = "Buda, Maki, Mazurowski 2018, sections 3.1.1 and 4.5"

register(Method("ros", SOURCE, resample=oversample))
register(
    Method(
        "ros-long",
        "control: ROS for as many iterations as methods with a second stage have in both",
        resample=oversample,
        with_second_stage=True,
    )
)
register(Method("rus", SOURCE, resample=undersample))
