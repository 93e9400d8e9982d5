"""A model in use: windows in, estimates out. A pure state machine, without clock or thread."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Generator, Mapping

import numpy as np
from numpy.typing import NDArray

from models.api import Arrays, Estimate, ModelError, Runtime, Window
from models.bundle import Bundle, combination
from models.calibration import RestingBaseline, calibrated, mean_score, only_finite
from models.distance import Distance
from models.interpolation import as_seen

Steps = Generator[Arrays, Arrays, Estimate]
"""What a window needs of the network: gives the inputs of a batch of one, is sent the outputs, returns the estimate."""


class Model:
    """Turns the windows of one session, in order, into estimates. The same windows give the same bits.

    Every kind of signal has to pass the bundle's gate, window by window, and must not be too unlike the training data.
    Channels that are bad in a kind that passes are made of the good ones (`models.interpolation`).
    The beginning of a session is the resting baseline, in which everything is withheld; a kind with too little good
    signal in it is left out for the session, which `notes` and the estimate that closes the baseline say. Afterwards an
    estimate rests on whatever passes and is withheld, with the reason in words, when nothing does. Called from one
    thread.
    """

    def __init__(self, bundle: Bundle, runtime: Runtime) -> None:
        self.bundle = bundle
        self._distance = Distance(bundle)
        self._runtime = runtime
        self.computed_by = str(getattr(runtime, "about", ""))
        """Library, version and precision of the runtime, for the record."""
        self._names = tuple(target.name for target in bundle.manifest.targets)
        self.reset()

    def reset(self) -> None:
        """Forgets the session: the next window may be of another person, and the resting baseline starts anew."""
        self._baseline = RestingBaseline(self.bundle.manifest)

    @property
    def baseline(self) -> RestingBaseline:
        """The resting baseline of this session, to look at."""
        return self._baseline

    @property
    def notes(self) -> tuple[str, ...]:
        """What holds for the rest of the session, one line each: the kinds that were left out."""
        return tuple(f"{kind.upper()} left out: {why}" for kind, why in self._left_out().items())

    def update(self, window: Window) -> Estimate:
        """What the model says of the next window of the session."""
        steps = self.steps(window)
        try:
            inputs = next(steps)
            while True:
                inputs = steps.send(self._runtime(inputs))
        except StopIteration as done:
            estimate: Estimate = done.value
            return estimate

    def steps(self, window: Window) -> Steps:
        """`update` without the runtime, for whoever runs the windows of several sessions together.

        To be run to its end, or closed, before the session's next window. What fails in between leaves no trace.
        """
        self._check(window)
        faults = {kind: fault for kind in self.bundle.manifest.kinds if (fault := self._fault(window, kind))}
        good = tuple(kind for kind in self.bundle.manifest.kinds if kind not in faults)
        if not self._baseline.over_before(window.t_end):
            return (yield from self._collect(window, good, faults))
        for kind, why in self._left_out().items():
            faults[kind] = f"{kind.upper()} left out: {why}"
        used = tuple(kind for kind in good if kind not in faults)
        if not used:
            return self._withhold(window, self._in_words(faults), good)
        outputs = yield self._inputs(window, used)
        if not only_finite(outputs):
            return self._withhold(window, "model returned NaN", used)
        far = self._distances(outputs, used)
        near = _leave_out_the_far(faults, far)
        if not near:
            return self._withhold(window, self._in_words(faults), used, far)
        if near != used:
            # The logit was of all of them; what is too far must not reach it.
            outputs = yield self._inputs(window, near)
            if not only_finite(outputs):
                return self._withhold(window, "model returned NaN", near)
        manifest = self.bundle.manifest
        mean, sd = calibrated(outputs["logit"][0], manifest.targets, manifest.calibration[combination(near)])
        unused = tuple(faults[kind] for kind in manifest.kinds if kind in faults)
        return self._estimate(window, mean, sd, None, near, near, {kind: far[kind] for kind in near}, unused)

    def _collect(self, window: Window, good: tuple[str, ...], faults: dict[str, str]) -> Steps:
        baseline = self._baseline
        far: dict[str, float] = {}
        if good:
            outputs = yield self._inputs(window, good)
            if not only_finite(outputs):
                return self._withhold(window, "model returned NaN", good)
            far = self._distances(outputs, good)
            if near := _leave_out_the_far(faults, far):
                baseline.add(window.t_end, outputs["embedding"][0], near)
        if not baseline.begun:
            return self._withhold(window, self._in_words(faults), good, far)
        if baseline.complete:
            return self._withhold(window, "; ".join(("resting baseline complete", *self.notes)), good, far)
        left = math.ceil(baseline.seconds_left(window.t_end) - 1e-6)
        if left > 0:
            said = f"resting baseline: {left} s left"
        else:
            said = f"resting baseline: {math.ceil(baseline.good_seconds_left() - 1e-6)} s of good signal wanting"
        wanting = self._in_words(faults, "; ")
        return self._withhold(window, f"{said}; {wanting}" if wanting else said, good, far)

    def _distances(self, outputs: Arrays, kinds: Collection[str]) -> dict[str, float]:
        """Of each kind in the network's outputs; from its own rest, too, once there is one."""
        embedding, baseline = outputs["embedding"][0], self._baseline
        found = {}
        for kind in kinds:
            part = baseline.part(kind)
            rest = (baseline.mean[part], baseline.sd[part]) if baseline.complete else None
            found[kind] = self._distance.of(kind, embedding[part], rest)
        return found

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
        counted = [verdict.score >= gate.bad_score for verdict in verdicts]
        if not np.isfinite(window.signals[kind][counted]).all():
            return f"{name}: holds values that are not numbers"
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

    def _in_words(self, faults: Mapping[str, str], between: str = ", ") -> str:
        return between.join(faults[kind] for kind in self.bundle.manifest.kinds if kind in faults)

    def _inputs(self, window: Window, used: Collection[str]) -> dict[str, NDArray[np.float32]]:
        manifest = self.bundle.manifest
        inputs: dict[str, NDArray[np.float32]] = {}
        for entry in manifest.window.inputs:
            kind, signal = entry.kind, window.signals[entry.kind]
            # What is not used does not reach the network, whatever it holds; nor does what is bad of what is used.
            if kind in used:
                signal = as_seen(signal, entry.channels, window.quality[kind], manifest.gate.bad_score)
            else:
                signal = np.zeros_like(signal)
            inputs[kind] = signal[None]
        inputs["use"] = np.array([[kind in used for kind in manifest.kinds]], dtype=np.float32)
        inputs["rest_mean"] = self._baseline.mean[None].astype(np.float32)
        inputs["rest_sd"] = self._baseline.sd[None].astype(np.float32)
        return inputs

    def _withhold(
        self, window: Window, reason: str, looked_at: Collection[str], far: Mapping[str, float] | None = None
    ) -> Estimate:
        nothing = np.full(len(self._names), np.nan)
        return self._estimate(window, nothing, nothing.copy(), reason, (), looked_at, far or {})

    def _estimate(
        self,
        window: Window,
        mean: NDArray[np.float64],
        sd: NDArray[np.float64],
        withheld: str | None,
        used: tuple[str, ...],
        looked_at: Collection[str],
        far: Mapping[str, float],
        unused: tuple[str, ...] = (),
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
            unused=unused,
            model=self.bundle.label,
            distance=max(far.values(), default=math.nan),
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


def _leave_out_the_far(faults: dict[str, str], far: Mapping[str, float]) -> tuple[str, ...]:
    """The kinds within their limit; why the others are not used is added to ``faults``."""
    for kind, times in far.items():
        if not times <= 1.0:
            # Of what is just beyond, two decimals would still say 1.00.
            shown = f"{times:.2g}" if times < 10 else f"{min(times, 1e6):.0f}"
            faults[kind] = f"{kind.upper()}: unlike the training data ({shown} x the limit)"
    return tuple(kind for kind, times in far.items() if times <= 1.0)
