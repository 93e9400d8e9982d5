"""Data sets, one file each: ``offline_training/datasets/<name>.py`` is the registration; what it has is `DataSet`."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from typing import cast

from models.bundle import Target
from offline_training.api import DataSet, TrainingError


def datasets() -> dict[str, str]:
    """The data sets there are: name -> the first line it says of itself. Nothing is imported for it."""
    return dict(_described())


@functools.cache
def _described() -> dict[str, str]:
    found = {}
    for module in pkgutil.iter_modules(__path__):
        spec = importlib.util.find_spec(f"{__name__}.{module.name}")
        source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
        if "\ndef parts(" in source:
            found[module.name] = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")
    return dict(sorted(found.items()))


def open_dataset(name: str) -> DataSet:
    """The data set of that name. Raises TrainingError when there is none, or a package that reads it is missing."""
    if name not in datasets():
        raise TrainingError(f"data set {name!r:.60}: there is none of that name; known are {', '.join(datasets())}")
    try:
        return cast(DataSet, importlib.import_module(f"{__name__}.{name}"))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("devices", "models", "realtime", "offline_training"):
            raise
        raise TrainingError(
            f'data set {name}: the package {error.name} is not installed; run: pip install ".[train]"'
        ) from None


def targets_of(dataset: DataSet, folder: Path) -> tuple[Target, ...]:
    """What recordings of the data in ``folder`` may be labelled with. Raises TrainingError when the folder has to say
    and does not."""
    told = getattr(dataset, "targets", None)
    return cast("tuple[Target, ...]", told(folder)) if callable(told) else dataset.TARGETS
