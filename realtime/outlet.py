"""The estimates as an LSL stream of type ``Affect``, for whoever records or reacts to them."""

from __future__ import annotations

import hashlib
import platform
from typing import Self

import numpy as np
import pylsl

from devices.lsl import use_network
from models.api import Estimate
from realtime.api import ModelCard

MEANING = (
    "mean and sd of each target over the window that ends at the time stamp (LSL clock); NaN when the estimate is "
    "withheld; quality is 0 (bad) to 1 (good) and always a number"
)
RESEARCH_USE = "Research use only. Not a medical device."


class AffectOutlet:
    """An outlet of irregular rate and format double64: the targets, ``<target>_sd`` for each, then ``quality``.

    The ``source_id`` is the same whenever this model runs in a session of the same ``title`` on this machine, so that
    a reader finds the stream again after a restart. Used from one thread; closed by `close` or at the end of ``with``.
    """

    def __init__(self, card: ModelCard, title: str = "", name: str = "insula") -> None:
        use_network()
        self._targets = card.targets
        rows = [
            *((target, "mean", "") for target in card.targets),
            *((f"{target}_sd", "sd", "") for target in card.targets),
            ("quality", "quality", "share"),
        ]
        # Hashed: the id must tell machines and models apart, not carry their names further than need be.
        identity = hashlib.sha256("\0".join((platform.node(), title, name, card.name, card.hash)).encode()).hexdigest()
        info = pylsl.StreamInfo(
            name, "Affect", len(rows), pylsl.IRREGULAR_RATE, pylsl.cf_double64, f"insula-affect-{identity[:16]}"
        )
        desc = info.desc()
        channels = desc.append_child("channels")
        for label, kind, unit in rows:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("type", kind)
            channel.append_child_value("unit", unit)
        window = desc.append_child("window")
        window.append_child_value("seconds", f"{card.seconds:g}")
        window.append_child_value("hop", f"{card.hop:g}")
        window.append_child_value("stamp", "end")
        model = desc.append_child("model")
        model.append_child_value("name", card.name)
        model.append_child_value("hash", card.hash)
        model.append_child_value("accuracy", card.accuracy)
        model.append_child_value("limits", card.limits)
        desc.append_child_value("meaning", MEANING)
        desc.append_child_value("use", RESEARCH_USE)
        desc.append_child("synchronization").append_child_value("can_drop_samples", "true")
        self._outlet: pylsl.StreamOutlet | None = pylsl.StreamOutlet(info)

    def push(self, estimate: Estimate) -> None:
        """Publish one estimate, stamped with the end of its window, which must be on the LSL clock."""
        if self._outlet is None:
            raise ValueError("the outlet is closed")
        if estimate.targets != self._targets:
            raise ValueError(f"the outlet was opened for {self._targets}, the estimate is of {estimate.targets}")
        withheld = estimate.withheld is not None
        numbers = np.full(2 * len(self._targets), np.nan) if withheld else np.r_[estimate.mean, estimate.sd]
        quality = estimate.quality if np.isfinite(estimate.quality) else 0.0
        self._outlet.push_sample([*numbers.tolist(), quality], estimate.t_end)

    def close(self) -> None:
        """Take the stream off the network."""
        self._outlet = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
