"""Settings every test needs: the loopback only, no display, the shared recordings where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ["QT_QPA_PLATFORM"] = "offscreen"
# liblsl reads this once, when it is loaded: nothing of the tests leaves this machine.
os.environ["LSLAPICFG"] = str(ROOT / "devices" / "loopback.cfg")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The shared recordings: INSULA_DATA, or ../shared/data beside the project."""
    folder = Path(os.environ.get("INSULA_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}; set INSULA_DATA")
    return folder
