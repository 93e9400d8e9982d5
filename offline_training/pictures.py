"""What an encoder makes of hidden patches, as a picture."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

MEASURED, FILLED, HIDDEN = "#52606d", "#d1495b", "#f1e4c3"
MOST_CHANNELS = 6


def reconstructions(
    x: NDArray[np.float32], filled: NDArray[np.float32], hidden: NDArray[np.bool_], title: str
) -> bytes:
    """A PNG with one column a window: what was measured, and over patches that were hidden what was filled in.

    ``x`` and ``filled`` are (windows, channels, patches, samples), ``hidden`` (windows, channels, patches).
    """
    windows, channels, patches, samples = x.shape
    # Of many channels some, spread evenly.
    rows = np.unique(np.linspace(0, channels - 1, min(channels, MOST_CHANNELS)).round().astype(int)).tolist()
    figure = Figure(figsize=(5.0 * windows, 1.0 + 1.8 * len(rows)), dpi=80, layout="constrained")
    axes = figure.subplots(len(rows), windows, squeeze=False, sharex=True)
    time = np.arange(patches * samples) / samples
    for window in range(windows):
        for place, row in enumerate(rows):
            axis = axes[place][window]
            axis.plot(time, x[window, row].reshape(-1), color=MEASURED, linewidth=0.8)
            for patch in np.flatnonzero(hidden[window, row]).tolist():
                part = slice(patch * samples, (patch + 1) * samples)
                axis.axvspan(patch, patch + 1, color=HIDDEN, linewidth=0)
                axis.plot(time[part], filled[window, row, patch], color=FILLED, linewidth=1.0)
            axis.set_xlim(0, patches)
            axis.tick_params(labelsize=7)
            if window == 0:
                axis.set_ylabel(f"channel {row + 1}", fontsize=8)
        axes[-1][window].set_xlabel("seconds", fontsize=8)
    figure.suptitle(f"{title}: measured, and filled in where it was hidden", fontsize=9)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()
