"""How far each runtime and precision moves the estimates of real windows: ``parity.py [--published FOLDER]``.

eegmat, rest and then mental arithmetic, a window every second, of the four people of the first fold; every runtime is a
session of its own, with its own resting baseline, so whatever it does to that counts too. Two networks:

- the bundle that ships, which was trained on three of the four;
- with ``--published FOLDER`` one of CBraMod's published size, trained for ``--steps`` steps on the other 24 people and
  kept in FOLDER (15 to 30 minutes on two cores), with its graphs of lower precision. It is there to have weights and
  embeddings as training makes them, in the size where lower precision pays: its accuracy is nobody's claim.

Against eager PyTorch: the largest difference of the logit over the largest logit there was, the differences of the
probability, and in how many estimates the nearer end of the scale is another. MISSED and exit status 1 when a
runtime in fp32 is more than 1e-3 off, or one of lower precision more than 0.05 of a probability.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
DATA = Path(os.environ.get("INSULA_DATA", ROOT.parent / "shared" / "data"))
EXACT, LOWER = 1e-3, 0.05


def first_fold(people):
    from offline_training.recipe import FOLDS, SEED
    from offline_training.splits import grouped_folds

    return grouped_folds(people, FOLDS, SEED)[0]


def published(folder: Path, steps: int):
    """A bundle of the published size, trained on everyone but the first fold; the one in ``folder`` if it is there."""
    from models.bundle import BinaryCalibration, Rest, load_bundle
    from models.distance import limits_of
    from offline_training import crossvalidate, recipe
    from offline_training.datasets import eegmat
    from offline_training.export import export_bundle
    from offline_training.finetune import MIN_SHARE, Settings, distances, draw, embed, references, train
    from offline_training.precision import add_precisions
    from offline_training.prepare import DEFAULT_GATE, REST_SECONDS

    if (folder / "manifest.json").is_file():
        return load_bundle(folder)
    prepared = recipe.windows(DATA, None, eegmat.digest(DATA))
    rows, apart = first_fold(prepared.people).rows(prepared.person)
    settings = Settings(d_model=200, layers=12, heads=8, ffn=800, position_kernel=(19, 7), steps=steps)
    trained = train(prepared, rows, settings, draw(prepared, settings, recipe.SEED))
    network = trained.network
    compared = references(trained, prepared, rows, embed(network, prepared, rows))
    far = distances(trained, compared, prepared, apart, embed(network, prepared, apart))
    as_it_is = BinaryCalibration(temperature=1.0, bias=0.0, logit_sd=1.0)
    bundle = export_bundle(
        folder.with_name(f"{folder.name}-fp32"),
        network,
        name="published size",
        version="0.1",
        window=prepared.spec,
        targets=(eegmat.TARGET,),
        rest=Rest(
            seconds=REST_SECONDS,
            min_share=MIN_SHARE,
            pooled_sd=tuple(map(float, trained.pooled_sd)),
            prior_windows=settings.prior_windows,
            floor=settings.rest_floor,
        ),
        gate=DEFAULT_GATE,
        calibration={uses: {eegmat.TARGET.name: as_it_is} for uses in crossvalidate.USES},
        distance={kind: limits_of(*both[np.isfinite(both).all(1)].T) for kind, both in far.items()},
        references=compared,
        accuracy="not measured",
        limits="for measuring runtimes only",
        metrics={},
        training={"people": sorted(set(prepared.person[rows].tolist())), "steps": steps},
        licence="BSD-3-Clause",
    )
    return add_precisions(bundle, folder)


def runtimes_of(bundle):
    """name -> runtime, the reference first."""
    from models.api import ModelError
    from models.runtimes import load_runtime, openvino, ort
    from models.runtimes.ort import QUANTISED

    made = {"pytorch": load_runtime("pytorch", bundle), "ort fp32": ort.load(bundle, precision="fp32")}
    if QUANTISED in bundle.files:
        made["ort int8"] = ort.load(bundle, precision="int8")
    for precision in ("fp32", "bf16"):
        try:
            made[f"openvino {precision}"] = openvino.load(bundle, precision=precision)
        except ModelError as error:
            print(error)
    return made


def compare(bundle, people, found) -> list[str]:
    from models.model import Model
    from offline_training.datasets import eegmat
    from realtime.windows import iter_windows

    runs = runtimes_of(bundle)
    estimates = {name: [] for name in runs}
    off, largest_logit = dict.fromkeys(runs, 0.0), 0.0
    models = {}

    def beside(reference):
        """The reference; on its very inputs, what the others give is compared with what it gives."""

        def run(inputs):
            nonlocal largest_logit
            wanted = reference(inputs)
            largest_logit = max(largest_logit, float(np.abs(wanted["logit"]).max()))
            for name, runtime in runs.items():
                got = wanted if runtime is reference else runtime(inputs)
                off[name] = max(off[name], float(np.abs(got["logit"] - wanted["logit"]).max()))
            return wanted

        return run

    for recording in eegmat.everyone(DATA):
        if recording.person not in people:
            continue
        if recording.rest:
            models = {name: Model(bundle, beside(run) if name == "pytorch" else run) for name, run in runs.items()}
        for window in iter_windows(recording.chunks, bundle.manifest.window, recording.streams):
            for name, model in models.items():
                estimate = model.update(window)
                estimates[name].append(np.nan if estimate.withheld else estimate.mean[0])
    wanted, missed = np.array(estimates["pytorch"]), []
    given = np.isfinite(wanted)
    print(f"\n{bundle.label}: {given.sum()} estimates of {len(wanted)} windows of {', '.join(sorted(people))}")
    print(
        f"  {'':14} {'outputs':>8}  probability: {'median':>8} {'p99':>8} {'largest':>8}  other end  withheld otherwise"
    )
    for name in runs:
        got = np.array(estimates[name])
        other = int((np.isfinite(got) != given).sum())
        moved = np.abs(got - wanted)[given & np.isfinite(got)]
        flips = int(((got > 0.5) != (wanted > 0.5))[given & np.isfinite(got)].sum())
        p50, p99, largest = float(np.median(moved)), float(np.percentile(moved, 99)), float(moved.max())
        worst = off[name] / largest_logit
        row = {"logit": worst, "p50": p50, "p99": p99, "largest": largest, "flips": flips, "withheld": other}
        print(f"  {name:14} {worst:8.1e}             {p50:8.1e}  {p99:8.1e}  {largest:8.1e}  {flips:9}  {other:18}")
        found.append({"bundle": bundle.label, "runtime": name, "estimates": int(given.sum())} | row)
        allowed = EXACT if "fp32" in name else LOWER
        if name != "pytorch" and (largest > allowed or ("fp32" in name and worst > EXACT)):
            missed.append(f"{bundle.label} in {name}: {largest:.1e} of a probability, {worst:.1e} of the logit")
    return missed


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--published", type=Path, metavar="FOLDER")
    made.add_argument("--steps", type=int, default=80)
    made.add_argument("--json", type=Path)
    options = made.parse_args()
    import onnxruntime
    import openvino
    import torch

    from models.bundle import default_bundle_folder, load_bundle
    from offline_training.datasets import eegmat

    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}"
    print(f"{platform.machine()} x {os.cpu_count()}, Python {platform.python_version()}, {versions}")
    people = first_fold(sorted({recording.person for recording in eegmat.everyone(DATA)})).test
    found: list[dict[str, object]] = []
    missed = compare(load_bundle(default_bundle_folder()), people, found)
    if options.published:
        missed += compare(published(options.published, options.steps), people, found)
    print(*(f"MISSED  {what}" for what in missed), sep="\n")
    if options.json:
        report = {"versions": versions, "missed": missed, "figures": found}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
