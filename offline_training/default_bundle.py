"""One command trains the bundle that ships: ``python -m offline_training.default_bundle --data DIR --out FOLDER``."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from models.api import ModelError
from offline_training.api import TrainingError

NEEDED = ("torch", "onnx", "onnxscript", "safetensors", "sklearn", "pyriemann", "accelerate", "matplotlib")
"""Of the train extra; an installation that only runs models has none of them."""
EPILOG = """\
the file that --data must hold:
  eegmat/eegmat_28_people_128hz_int16_0p1uV.npz, made from the EDF files of PhysioNet's eegmat 1.0.0
  (https://physionet.org/content/eegmat/1.0.0/), resampled to 128 Hz, with these arrays:
    channels      str (21,)              names of the rows: 19 EEG channels (Fp1 .. Pz), A2-A1, and last ECG
    fs            int64 ()               128, samples per second
    scale_uV      float64 ()             0.1, microvolts per count
    SubjectNN_1   int16 (21, samples)    person NN at rest, counts of 0.1 uV
    SubjectNN_2   int16 (21, samples)    the same person under mental arithmetic
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m offline_training.default_bundle",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="the folder that holds eegmat/eegmat_28_people_128hz_int16_0p1uV.npz (see below for what is in it)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the bundle's folder")
    parser.add_argument("--cache", type=Path, help="keep windows and finished folds here")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--quick", action="store_true", help="leave the encoders as they are drawn")
    chosen = parser.parse_args(arguments)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f'training needs {", ".join(missing)}; install them with: pip install ".[train]"', file=sys.stderr)
        return 2
    # Only now: importing it needs what was just looked for.
    from offline_training import recipe
    from offline_training.finetune import Settings

    settings = Settings(steps=0) if chosen.quick else Settings()
    try:
        _, figures = recipe.build(chosen.data, chosen.out, settings=settings, cache=chosen.cache)
    except (TrainingError, ModelError) as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
