"""One look: colours (Okabe and Ito, safe for the colour-blind), fonts, and how text and numbers are written."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QColor, QFont, QKeyEvent, QPalette
from PySide6.QtWidgets import QCheckBox, QFrame, QHBoxLayout, QLabel, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from realtime.api import Command, Update

ORANGE, SKY, YELLOW = "#E69F00", "#56B4E9", "#F0E442"
BLUE, PURPLE = "#0072B2", "#CC79A7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours by what they are for."""

    back: str
    card: str
    plot: str
    line: str
    text: str
    muted: str
    eeg: str
    ecg: str
    other: str
    accent: str
    good: str
    fair: str
    bad: str
    marker: str
    targets: tuple[str, ...]


DARK = Theme(
    back="#0f1318",
    card="#171d24",
    plot="#12171d",
    line="#2a333d",
    text="#e8eef4",
    muted="#9fadba",
    eeg="#a9cbe3",
    ecg=ORANGE,
    other=PURPLE,
    accent=SKY,
    good="#2bc194",  # Okabe-Ito's bluish green, lighter: the original is too dark on a dark ground
    fair=YELLOW,
    bad="#ff7a33",  # vermillion, lighter for the same reason
    marker=PURPLE,
    targets=(SKY, ORANGE, PURPLE, YELLOW),
)
LIGHT = Theme(
    back="#eef1f4",
    card="#ffffff",
    plot="#fbfcfd",
    line="#d3dae1",
    text="#18212a",
    muted="#556270",
    eeg="#1d4f75",
    ecg="#b34a00",
    other="#8f3f6c",
    accent=BLUE,
    good="#007a58",
    fair="#8a6d00",
    bad="#c24a00",
    marker="#8f3f6c",
    targets=(BLUE, "#b84c00", "#8f3f6c", "#8a6d00"),
)

theme = DARK


def use(chosen: Theme) -> None:
    """Take ``chosen`` for every widget made from now on."""
    global theme
    theme = chosen


def font(pixels: int, *, bold: bool = False) -> QFont:
    """The one font of the dashboard."""
    made = QFont()
    made.setFamilies(["Inter", "Segoe UI", "SF Pro Text", "Noto Sans", "DejaVu Sans"])
    made.setPixelSize(pixels)
    made.setBold(bold)
    return made


def color(name: str, alpha: int = 255) -> QColor:
    made = QColor(name)
    made.setAlpha(alpha)
    return made


def palette() -> QPalette:
    """Ground, text and highlight for what the style sheet does not reach: dialogs, scroll bars, lists."""
    made = QPalette()
    roles = QPalette.ColorRole
    for role, name in (
        (roles.Window, theme.back),
        (roles.Base, theme.plot),
        (roles.Button, theme.card),
        (roles.WindowText, theme.text),
        (roles.Text, theme.text),
        (roles.ButtonText, theme.text),
        (roles.PlaceholderText, theme.muted),
        (roles.Highlight, theme.accent),
        (roles.HighlightedText, theme.back),
    ):
        made.setColor(role, color(name))
    return made


def style() -> str:
    """The style sheet of the whole window."""
    t = theme
    return f"""
QWidget {{ color: {t.text}; font-size: 13px; }}
QWidget#board {{ background: {t.back}; }}
QMessageBox, QDialog {{ background: {t.card}; }}
QFrame#card {{ background: {t.card}; border: 1px solid {t.line}; border-radius: 8px; }}
QLabel {{ background: transparent; }}
QLabel#heading {{ font-size: 13px; font-weight: 600; }}
QLabel#muted {{ color: {t.muted}; font-size: 12px; }}
QLabel#brand {{ font-size: 19px; font-weight: 700; color: {t.accent}; }}
QLabel#title {{ font-size: 15px; font-weight: 600; }}
QLabel#pill {{ border: 1px solid {t.accent}; border-radius: 10px; padding: 2px 10px; color: {t.accent};
  font-size: 12px; font-weight: 600; }}
QLabel#big {{ font-size: 46px; font-weight: 700; }}
QLabel#spread {{ font-size: 17px; }}
QLabel#alarm {{ background: #b3261e; color: white; font-size: 15px; font-weight: 600; border-radius: 8px;
  padding: 9px 14px; }}
QPushButton, QLineEdit {{ background: {t.plot}; border: 1px solid {t.line}; border-radius: 5px;
  padding: 4px 9px; min-height: 18px; }}
QPushButton:hover {{ border-color: {t.accent}; }}
QPushButton:focus, QLineEdit:focus {{ border-color: {t.accent}; }}
QPushButton#low {{ padding: 2px 9px; min-height: 16px; }}
QPushButton:checked {{ border-color: {t.accent}; color: {t.accent}; }}
QTableWidget {{ background: {t.plot}; border: 1px solid {t.line}; border-radius: 5px; }}
QTableWidget:focus {{ border-color: {t.accent}; }}
QHeaderView::section {{ background: {t.card}; color: {t.muted}; border: none; padding: 2px 4px; font-size: 12px; }}
QPushButton:disabled, QLineEdit:disabled {{ color: {t.muted}; }}
QPushButton#primary {{ background: {t.accent}; color: {t.back}; font-weight: 600; border-color: {t.accent}; }}
QPushButton#primary:disabled {{ background: {t.line}; color: {t.muted}; border-color: {t.line}; }}
QScrollArea {{ background: transparent; border: none; }}
QWidget#bare {{ background: transparent; }}
QScrollBar:vertical {{ background: transparent; width: 8px; margin: 0; }}
QScrollBar::handle:vertical {{ background: {t.line}; border-radius: 4px; min-height: 20px; }}
QScrollBar:horizontal {{ background: {t.plot}; border: 1px solid {t.line}; border-radius: 7px; height: 14px;
  margin: 0; }}
QScrollBar:horizontal:focus {{ border-color: {t.accent}; }}
QScrollBar::handle:horizontal {{ background: {t.muted}; border-radius: 6px; min-width: 24px; }}
QScrollBar::add-line, QScrollBar::sub-line {{ height: 0; width: 0; }}
QScrollBar::add-page, QScrollBar::sub-page {{ background: none; }}
QSplitter::handle {{ background: {t.back}; }}
"""


def plain(text: str, limit: int = 120) -> str:
    """Text from outside made fit for the screen: one line, no control or direction characters, at most ``limit`` long.

    >>> plain("rest\\n\\u202eopen" + "!" * 9, 12)
    'rest open!!…'
    """
    kept = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text[: 4 * limit])
    kept = "".join(c for c in kept if unicodedata.category(c) not in ("Cf", "Cs", "Co", "Cn")).strip()
    return kept if len(kept) <= limit and len(text) <= 4 * limit else kept[: limit - 1] + "…"


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours from the first hour on.

    >>> clock(71.6), clock(3725.0), clock(-5.0), clock(float("nan"))
    ('1:11', '1:02:05', '−0:05', '–')
    """
    if not math.isfinite(seconds):
        return "–"
    sign, whole = ("−", math.ceil(-seconds)) if seconds < 0 else ("", math.floor(seconds))
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{sign}{hours}:{minutes:02d}:{rest:02d}" if hours else f"{sign}{minutes}:{rest:02d}"


def size(count: int) -> str:
    """Bytes for people.

    >>> size(900), size(2_400_000), size(5_100_000_000)
    ('900 B', '2.4 MB', '5.1 GB')
    """
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} B"


def label(text: str = "", name: str = "", *, wrap: bool = False, shrink: bool = False) -> QLabel:
    """A label that shows its text as it is, never as rich text. With ``shrink`` it gives way first."""
    made = QLabel()
    made.setTextFormat(Qt.TextFormat.PlainText)
    made.setObjectName(name)
    made.setWordWrap(wrap)
    made.setText(text)
    if shrink:
        made.setMinimumWidth(1)
    return made


def keeps_space(event: QEvent) -> bool:
    """Whether ``event`` is a press of the space bar, which a control with the focus may keep for itself."""
    shortcut = event.type() == QEvent.Type.ShortcutOverride
    if shortcut and isinstance(event, QKeyEvent) and event.key() == Qt.Key.Key_Space:
        event.accept()
        return True
    return False


class Switch(QCheckBox):
    """A check box that keeps the space bar while it has the focus: elsewhere in the window it plays and pauses."""

    def event(self, event: QEvent) -> bool:
        return keeps_space(event) or super().event(event)


class Button(QPushButton):
    """A low push button that keeps the space bar as `Switch` does."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.setObjectName("low")

    def event(self, event: QEvent) -> bool:
        return keeps_space(event) or super().event(event)


class Card(QFrame):
    """A titled area. Every panel is one: ``apply`` takes updates, ``refresh`` draws, 30 times a second at most."""

    place: ClassVar[Literal["top", "left", "right", "bottom"]] = "right"
    order: ClassVar[int] = 0
    """Panels of one place stand in this order."""
    stretch: ClassVar[int] = 0
    """Share of spare height."""

    def __init__(self, title: str, send: Callable[[Command], None]) -> None:
        super().__init__()
        self.setObjectName("card")
        self.send = send
        self.dirty = True
        self.body = QVBoxLayout(self)
        self.body.setContentsMargins(12, 9, 12, 10)
        self.body.setSpacing(6)
        self.bar = QHBoxLayout()
        self.bar.setSpacing(8)
        if title:
            self.bar.addWidget(label(title, "heading"))
            self.bar.addStretch(1)
            self.body.addLayout(self.bar)

    def apply(self, update: Update) -> None:
        """Take in one message of the engine."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Draw what has changed."""

    def touch(self) -> None:
        """Have the next ``refresh`` draw everything, as after a change of size."""
        self.dirty = True


def fit_height(made: QLabel) -> None:
    """Keep a wrapping label from being squeezed: layouts ask it for less height than its lines need."""
    needed = made.heightForWidth(made.width())
    if needed > 0 and made.minimumHeight() != needed:
        made.setMinimumHeight(needed)


def tall(widget: QWidget) -> QWidget:
    """``widget``, taking all the height there is."""
    widget.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
    return widget
