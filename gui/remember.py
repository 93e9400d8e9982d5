"""How the window looked last time: a file of this user, read and written only when a window is really shown."""

from __future__ import annotations

import json
from typing import TypeVar

from PySide6.QtCore import QSettings

Kept = TypeVar("Kept", bool, int, float, str, list, dict)  # type: ignore[type-arg]

LONGEST = 100_000
"""Characters of one thing remembered."""

store: QSettings | None = None


def use(chosen: QSettings | None) -> None:
    """Remember in ``chosen`` from now on; nowhere with None."""
    global store
    store = chosen


def of_this_user() -> QSettings:
    """Where a dashboard remembers: a text file, for example ``~/.config/insula/dashboard.ini``."""
    return QSettings(QSettings.Format.IniFormat, QSettings.Scope.UserScope, "insula", "dashboard")


def recall(name: str, otherwise: Kept) -> Kept:
    """What was kept under ``name``; ``otherwise`` when there is nothing of its type."""
    text = store.value(name) if store is not None else None
    if not isinstance(text, str) or len(text) > LONGEST:
        return otherwise
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # somebody wrote into the file
        return otherwise
    return found if type(found) is type(otherwise) else otherwise


def keep(name: str, value: Kept) -> None:
    """Remember ``value`` under ``name``."""
    if store is not None:
        store.setValue(name, json.dumps(value))
