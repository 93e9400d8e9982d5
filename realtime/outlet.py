"""LSL streams for whoever records or reacts to them: estimates of type ``Affect``, heart and rhythms ``Physiology``."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from typing import Self

import pylsl

from devices.lsl import use_network
from devices.xdf_format import PHYSIOLOGY_TYPE
from models.api import Estimate, estimate_channels
from realtime.api import BODY_COLUMNS, Body, ModelCard
from realtime.record import PHYSIOLOGY_MEANING

MEANING = (
    "mean and sd of each target over the window that ends at the time stamp (LSL clock); NaN when the estimate is "
    "withheld; quality is 0 (bad) to 1 (good) and always a number"
)
RESEARCH_USE = "Research use only. Not a medical device."


class _Outlet:
    """What every outlet has in common: it is there from the start until `close` or the end of ``with``."""

    def __init__(self, info: pylsl.StreamInfo) -> None:
        self._outlet: pylsl.StreamOutlet | None = pylsl.StreamOutlet(info)

    def _push(self, values: Sequence[float], stamp: float) -> None:
        if self._outlet is None:
            raise ValueError("the outlet is closed")
        self._outlet.push_sample(values, stamp)

    def close(self) -> None:
        """Take the stream off the network."""
        self._outlet = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AffectOutlet(_Outlet):
    """An outlet of irregular rate and format double64, with the channels of `models.api.estimate_channels`.

    The ``source_id`` is the same whenever this model runs in a session of the same ``title`` on this machine, so that
    a reader finds the stream again after a restart. Used from one thread; closed by `close` or at the end of ``with``.
    """

    def __init__(self, card: ModelCard, title: str = "", name: str = "insula") -> None:
        use_network()
        self._targets = card.targets
        labels = estimate_channels(card.targets)
        # Hashed: the id must tell machines and models apart, not carry their names further than need be.
        identity = hashlib.sha256("\0".join((platform.node(), title, name, card.name, card.hash)).encode()).hexdigest()
        info = pylsl.StreamInfo(
            name, "Affect", len(labels), pylsl.IRREGULAR_RATE, pylsl.cf_double64, f"insula-affect-{identity[:16]}"
        )
        desc = info.desc()
        channels = desc.append_child("channels")
        meanings = dict(zip(card.targets, card.meanings, strict=True))
        for label in labels:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("meaning", meanings.get(label, ""))
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
        super().__init__(info)

    def push(self, estimate: Estimate, stamp: float | None = None) -> None:
        """Publish one estimate, stamped with the end of its window, which must be on the LSL clock.

        ``stamp`` puts another time on it: a replay's windows end on the recording's clock.
        """
        if estimate.targets != self._targets:
            raise ValueError(f"the outlet was opened for {self._targets}, the estimate is of {estimate.targets}")
        self._push(estimate.values(), estimate.t_end if stamp is None else stamp)


class PhysiologyOutlet(_Outlet):
    """An outlet of irregular rate and format double64, with the figures of `realtime.api.BODY_COLUMNS`.

    Otherwise as `AffectOutlet`; there is no model to it.
    """

    def __init__(self, title: str = "", name: str = "insula") -> None:
        use_network()
        identity = hashlib.sha256("\0".join((platform.node(), title, name)).encode()).hexdigest()
        info = pylsl.StreamInfo(
            name,
            PHYSIOLOGY_TYPE,
            len(BODY_COLUMNS),
            pylsl.IRREGULAR_RATE,
            pylsl.cf_double64,
            f"insula-physiology-{identity[:16]}",
        )
        desc = info.desc()
        channels = desc.append_child("channels")
        for label, unit in BODY_COLUMNS.items():
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("unit", unit)
        desc.append_child_value("meaning", PHYSIOLOGY_MEANING)
        desc.append_child_value("use", RESEARCH_USE)
        desc.append_child("synchronization").append_child_value("can_drop_samples", "true")
        super().__init__(info)

    def push(self, body: Body, stamp: float | None = None) -> None:
        """Publish the figures of one second, stamped with its time, which must be on the LSL clock, or ``stamp``."""
        self._push(body.values(), body.time if stamp is None else stamp)
