"""A model in use: windows in, estimates out. A pure state machine, without clock or thread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from models.api import Estimate, ModelError, Runtime, Window
from models.bundle import Bundle, combination
from models.calibration import RestingBaseline, mean_score, on_ranges, only_finite, probabilities


class Model:
    """Turns the windows of one session, in order, into estimates. The same windows give the same bits.

    Every kind of signal has to pass the bundle's gate, window by window. The beginning of a session is the resting
    baseline, in which everything is withheld; a kind with too little good signal in it is left out for the session,
    which `notes` and the estimate that closes the baseline say. Afterwards an estimate rests on whatever passes and is
    withheld, with the reason in words, when nothing does. Called from one thread.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self.bundle = bundle
        self._runtime = runtime
        self._names = tuple(target.name for target in bundle.manifest.targets)
        self.reset()

    def reset(self) -> None:
        """Forgets the session: the next window may be of another person, and the resting baseline starts anew."""
        self._baseline = RestingBaseline(self.bundle.manifest)

    @property
    def notes(self) -> tuple[str, ...]:
        """What holds for the rest of the session, one line each: the kinds that were left out."""
        return tuple(f"{kind.upper()} left out: {why}" for kind, why in self._left_out().items())

    def update(self, window: Window) -> Estimate:
        """What the model says of the next window of the session."""
        self._check(window)
        faults = {kind: fault for kind in self.bundle.manifest.kinds if (fault := self._fault(window, kind))}
        good = tuple(kind for kind in self.bundle.manifest.kinds if kind not in faults)
        if not self._baseline.over_before(window.t_end):
            return self._collect(window, good, faults)
        for kind, why in self._left_out().items():
            faults[kind] = f"{kind.upper()} left out: {why}"
        used = tuple(kind for kind in good if kind not in faults)
        if not used:
            return self._withhold(window, ", ".join(faults.values()), good)
        outputs = self._run(window, used)
        if not only_finite(outputs):
            return self._withhold(window, "model returned NaN", used)
        manifest = self.bundle.manifest
        p, sd = probabilities(outputs["logit"][0], manifest.calibration[combination(used)])
        mean, sd = on_ranges(p, sd, [target.range for target in manifest.targets])
        return self._estimate(window, mean, sd, None, used, used)

    def _collect(self, window: Window, good: tuple[str, ...], faults: dict[str, str]) -> Estimate:
        baseline = self._baseline
        wanting = list(faults.values())
        if good:
            outputs = self._run(window, good)
            if not only_finite(outputs):
                return self._withhold(window, "model returned NaN", good)
            baseline.add(window.t_end, outputs["embedding"][0], good)
        if not baseline.begun:
            return self._withhold(window, ", ".join(wanting), good)
        if baseline.complete:
            return self._withhold(window, "; ".join(("resting baseline complete", *self.notes)), good)
        left = math.ceil(baseline.seconds_left(window.t_end) - 1e-6)
        if left > 0:
            said = f"resting baseline: {left} s left"
        else:
            said = f"resting baseline: {math.ceil(baseline.good_seconds_left() - 1e-6)} s of good signal wanting"
        return self._withhold(window, "; ".join((said, *wanting)), good)

    def _left_out(self) -> dict[str, str]:
        baseline = self._baseline
        if not baseline.complete:
            return {}
        needed = baseline.needed * self.bundle.manifest.window.hop
        return {
            kind: f"good for {baseline.good_seconds(kind):g} s of the resting baseline, {needed:g} s are needed"
            for kind in self.bundle.manifest.kinds
            if kind not in baseline.kinds
        }

    def _fault(self, window: Window, kind: str) -> str:
        """Why a kind cannot be used in a window, in words; "" when it can."""
        gate, name = self.bundle.manifest.gate, kind.upper()
        present = window.present.get(kind, 0.0)
        verdicts = window.quality.get(kind, ())
        # "not at least" instead of "less": NaN fails too.
        if not present > 0 or not verdicts:
            return f"{name} missing"
        if not present >= gate.min_present[kind]:
            return f"{name}: {100 * (1 - present):.0f} % missing"
        bad = [verdict for verdict in verdicts if not verdict.score >= gate.bad_score]
        reasons = Counter(verdict.reason for verdict in bad if verdict.reason).most_common(1)
        said = reasons[0][0] if reasons else "bad signal"
        if len(bad) > gate.max_bad_share * len(verdicts):
            return (
                f"{name}: {said}"
                if len(verdicts) == 1
                else f"{name}: {len(bad)} of {len(verdicts)} channels bad ({said})"
            )
        score = mean_score([verdict.score for verdict in verdicts])
        if not score >= gate.min_quality[kind]:
            return f"{name}: quality {score:.2f}" + (f" ({said})" if reasons else "")
        return ""

    def _run(self, window: Window, used: Collection[str]) -> dict[str, NDArray[np.float32]]:
        manifest = self.bundle.manifest
        inputs: dict[str, NDArray[np.float32]] = {}
        for kind in manifest.kinds:
            signal = window.signals[kind]
            # What is not used does not reach the network, whatever it holds.
            inputs[kind] = (signal if kind in used else np.zeros_like(signal))[None]
        inputs["use"] = np.array([[kind in used for kind in manifest.kinds]], dtype=np.float32)
        inputs["rest_mean"] = self._baseline.mean[None].astype(np.float32)
        inputs["rest_sd"] = self._baseline.sd[None].astype(np.float32)
        return self._runtime(inputs)

    def _withhold(self, window: Window, reason: str, looked_at: Collection[str]) -> Estimate:
        nothing = np.full(len(self._names), np.nan)
        return self._estimate(window, nothing, nothing.copy(), reason, (), looked_at)

    def _estimate(
        self,
        window: Window,
        mean: NDArray[np.float64],
        sd: NDArray[np.float64],
        withheld: str | None,
        used: tuple[str, ...],
        looked_at: Collection[str],
    ) -> Estimate:
        kinds = looked_at or self.bundle.manifest.kinds
        scores = [mean_score([verdict.score for verdict in window.quality.get(kind, ())]) for kind in kinds]
        return Estimate(
            t_end=window.t_end,
            targets=self._names,
            mean=mean,
            sd=sd,
            present=dict(window.present),
            quality=min(scores),
            withheld=withheld,
            used=used,
            model=self.bundle.label,
        )

    def _check(self, window: Window) -> None:
        spec = self.bundle.manifest.window
        samples = round(spec.seconds * spec.rate)
        for entry in spec.inputs:
            wanted = (len(entry.channels), samples)
            found = window.signals[entry.kind].shape if entry.kind in window.signals else "nothing"
            if found != wanted:
                raise ModelError(
                    f"{self.bundle.manifest.name}: the window has {found} for {entry.kind}, the model takes {wanted}; "
                    "cut windows as the bundle's manifest says"
                )
