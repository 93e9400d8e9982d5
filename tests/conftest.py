"""What every test needs: the loopback only, no display, the shared recordings, a small bundle and windows for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from models.api import InputSpec, Verdict, Window, WindowSpec
from models.bundle import BinaryCalibration, Bundle, DistanceLimit, Gate, Rest, Target
from models.distance import Reference

ROOT = Path(__file__).resolve().parent.parent
os.environ["QT_QPA_PLATFORM"] = "offscreen"
# liblsl reads this once, when it is loaded: nothing of the tests leaves this machine.
os.environ["LSLAPICFG"] = str(ROOT / "devices" / "loopback.cfg")
EEG = ("Fp1", "Fp2", "C3", "C4", "O1", "O2")
SECONDS, RATE = 4, 200


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared recordings: INSULA_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("INSULA_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}; set INSULA_DATA")
    return folder


@pytest.fixture(scope="session")
def fusion():
    """A small fusion network with random weights."""
    import torch

    from models.encoders.cbramod import Config
    from models.fusion import FusionConfig, FusionModel

    torch.manual_seed(7)
    encoder = Config(d_model=40, layers=2, heads=4, ffn=80, position_kernel=(5, 3))
    config = FusionConfig(
        eeg_channels=len(EEG), seconds=SECONDS, targets=2, eeg=encoder, ecg=encoder, band_power=True, heart=True
    )
    model = FusionModel(config)
    with torch.no_grad():
        # Not zero, as at the beginning of training: a missing kind must be seen in the output.
        model.absent_eeg.normal_()
        model.absent_ecg.normal_()
    return model.eval()


@pytest.fixture(scope="session")
def bundle(fusion, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The small network, exported once as a real bundle with a resting baseline of 20 s."""
    from offline_training.export import export_bundle

    def calibration(scale: float) -> dict[str, BinaryCalibration]:
        return {
            "arousal": BinaryCalibration(temperature=scale, bias=0.1, logit_sd=0.8),
            "effort": BinaryCalibration(temperature=1.0, bias=-0.1, logit_sd=1.2),
        }

    def anywhere(width: int) -> Reference:
        """Around zero, so wide that nothing of these tests is far from it unless its limit is made small."""
        return Reference(np.zeros(width), np.eye(width) / 100)

    widths = {"eeg": fusion.config.eeg_dim, "ecg": fusion.config.ecg_dim}

    return export_bundle(
        tmp_path_factory.mktemp("bundle") / "small",
        fusion,
        name="small",
        version="0.1",
        window=WindowSpec(
            inputs=(InputSpec(kind="eeg", channels=EEG, min_channels=4), InputSpec(kind="ecg", channels=("ECG",))),
            rate=float(RATE),
            seconds=float(SECONDS),
            hop=1.0,
        ),
        targets=(
            Target(name="arousal", kind="binary", range=(0.0, 1.0), meaning="0 rest, 1 load"),
            Target(name="effort", kind="binary", range=(1.0, 9.0), meaning="1 none, 9 all"),
        ),
        rest=Rest(
            seconds=20.0,
            min_share=0.5,
            pooled_sd=(0.5,) * fusion.config.embedding_dim,
            prior_windows=10.0,
            floor=0.1,
        ),
        gate=Gate(min_present={"eeg": 0.9, "ecg": 0.9}, min_quality={"eeg": 0.5, "ecg": 0.5}),
        calibration={"eeg+ecg": calibration(1.0), "eeg": calibration(1.5), "ecg": calibration(2.0)},
        distance={kind: DistanceLimit(plain=1.0, rested=1.0) for kind in widths},
        references={kind: (anywhere(width), anywhere(width)) for kind, width in widths.items()},
        accuracy="random weights: none",
        limits="for tests only",
        metrics={"balanced_accuracy": {"arousal": 0.5}},
        training={"people": []},
        licence="BSD-3-Clause",
    )


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of the bundle that a test may damage."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in bundle.folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def make_window(
    t_end: float, *, present: dict[str, float] | None = None, bad: dict[str, tuple[int, str]] | None = None
):
    """A window with everything well; ``present`` overrides shares, ``bad`` says (channels, reason) of a kind."""
    random = np.random.default_rng(round(t_end * 1000))
    time = t_end - SECONDS + np.arange(SECONDS * RATE) / RATE
    eeg = 10 * random.standard_normal((len(EEG), len(time))) + 8 * np.sin(2 * np.pi * 10 * time)
    ecg = 800 * np.exp(-0.5 * (((time * 1.2) % 1 - 0.5) / 0.015) ** 2)[None] + random.standard_normal((1, len(time)))
    shares = {"eeg": 1.0, "ecg": 1.0} | (present or {})
    quality = {}
    for kind, channels in (("eeg", EEG), ("ecg", ("ECG",))):
        count, reason = (bad or {}).get(kind, (0, ""))
        quality[kind] = tuple(
            Verdict(name, 0.0 if index < count else 0.9, reason if index < count else "")
            for index, name in enumerate(channels)
        )
    return Window(
        t_end=t_end,
        seconds=float(SECONDS),
        signals={"eeg": eeg.astype(np.float32), "ecg": ecg.astype(np.float32)},
        present=shares,
        quality=quality,
    )


@pytest.fixture(scope="session")
def window():
    return make_window
