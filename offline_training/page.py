"""The report of an evaluation as one HTML file that needs nothing else: figures, tables, settings, data, limits.

Figures are SVG inside the page. What is drawn in `INK` takes the colour of the page's text, so that they can be read on
a light and on a dark page.
"""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from offline_training import crossvalidate, evaluate
from offline_training.crossvalidate import ROWS, Outcome

INK = "#010203"
"""Stands for the colour of the text."""
SHADE = "#8a94a0"
COLOURS = ("#2f7fd6", "#d9722e", "#3c9d5d", "#a05fc0")
"""Of rows, in the order in which they are drawn; seen on white and on near black."""
MARKS: dict[str, dict[str, Any]] = {
    "balanced_accuracy": {"color": COLOURS[0], "markersize": 5},
    "auroc": {"markerfacecolor": "none", "markeredgecolor": COLOURS[1], "markersize": 7},
}
FUSED = ROWS["eeg+ecg"]
LINES = (*ROWS.values(), "classical, both")
STYLE = """
:root { color-scheme: light dark; --ink: #1c2127; --faint: #5b6570; --page: #ffffff; --line: #d5dae0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e7eb; --faint: #9aa5b1; --page: #14181d; --line: #39424d; }
}
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0.2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.lead { font-size: 1.1rem; } .faint, figcaption { color: var(--faint); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; } svg { width: 100%; height: auto; color: var(--ink); } figcaption { font-size: 0.9rem; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.9rem; }
th, td { text-align: left; padding: 0.25rem 1rem 0.25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
td { font-variant-numeric: tabular-nums; } td.words { white-space: normal; }
"""


def page(content: Mapping[str, Any], outcome: Outcome) -> str:
    """The report, as text. ``content`` is what the evaluation's JSON says."""
    target, data, windows = content["target"], content["data"], content["windows"]
    binary = target["kind"] == "binary"
    people = len(content["metrics"]["per_person"])
    upper = "1" if binary else f"the upper half of {target['range'][0]:g} to {target['range'][1]:g}"
    parts = [
        f"<h1>{_text(target['name'])}, from EEG and ECG of {people} people</h1>",
        f'<p class="lead">{_text(_sentence(content["accuracy"]))}</p>',
        f'<p class="faint">{_text(data["name"])}. {_text(_sentence(target["meaning"]))}</p>',
        f'<p class="faint">{_text(_sentence(content["protocol"]))}</p>',
        "<h2>What stands beside it</h2>",
        _figure("rows", rows_figure(content), "Balanced accuracy of every row with its 95 % interval over people. "
                "Half is what guessing gives."),
        _score_table(content),
        "<h2>How it tells apart</h2>",
        '<div class="figures">',
        _figure("roc", roc_figure(outcome), f"ROC: how many windows of {_text(upper)} are found, and how many of the "
                "others are taken for it."),
        _figure("reliability", reliability_figure(outcome), "Reliability of the fused estimate, calibrated on the "
                "other folds: where the points lie on the line, a stated probability is how often it is so. Bars: how "
                "often each is stated."),
        _figure("confusion", confusion_figure(outcome), "What windows of each class were taken for, at the threshold "
                "that was fixed beforehand. Share of the row, and windows."),
    ]  # fmt: skip
    if not binary:
        parts.append(_figure("values", values_figure(outcome), "What was told and what was estimated, calibrated on "
                             "the other folds. The line is where they agree."))  # fmt: skip
    parts += [
        "</div>",
        "<h2>Each person</h2>",
        _figure("people", people_figure(content), "Balanced accuracy and AUROC of each person, by networks that were "
                "not trained on that person."),
        _people_table(content),
        "<h2>What moved the estimate</h2>",
        _figure("moved", moved_figure(content), ("AUROC" if binary else "Rank correlation") + " that is lost when a "
                "group of features is taken from another window of the same person, with the 95 % interval over "
                "people. Groups that say the same stand in for each other and both look small."),
        "<h2>Settings</h2>",
        f"<p>{_text(_sentence(content['selection']))}</p>",
        _choices(content),
        _pairs({**content["settings"], "seed": content["seed"]}),
        "<h2>Data</h2>",
        _pairs(
            {
                "data set": data["name"],
                "attribution": data["attribution"],
                "licence": data["licence"],
                "address": data["url"],
                "sha256": data["sha256"],
                "people": ", ".join(content["metrics"]["per_person"]),
                "excluded from the network": ", ".join(content["excluded"]) or "nobody",
                "left out": "; ".join(f"{who} {why}" for who, why in content["left out"].items()) or "nobody",
                "windows": f"{windows['all']}, {windows['trained']} to train on, {windows['scored']} scored",
                "good enough": f"EEG {100 * windows['eeg good']:.1f} %, ECG {100 * windows['ecg good']:.1f} %",
                "folds": "; ".join(", ".join(fold) for fold in content["folds"]),
                "weights to begin with": _weights(content) or "none: as drawn",
                "versions": ", ".join(f"{name} {number}" for name, number in content["versions"].items()),
            }
        ),
        "<h2>Limits</h2>",
        "<ul>",
        *(f"<li>{_text(_sentence(one))}</li>" for one in limits(content)),
        "</ul>",
    ]  # fmt: skip
    title = f"{target['name']}: evaluation"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts) + "\n</body>\n"
        "</html>\n"
    )


def limits(content: Mapping[str, Any]) -> list[str]:
    """What the figures are not, in sentences."""
    people = len(content["metrics"]["per_person"])
    found = [
        content["data"]["order"],
        f"the figures are of {people} people of one data set; of others, with other devices, they say little",
        content["data"]["form"],
        "windows of one person are alike: intervals are over people, not over windows",
        "where several evaluations were looked at and one was kept, its figures are too kind",
        "research use, not a medical device",
    ]
    if content["target"]["kind"] != "binary":
        found.insert(1, "balanced accuracy, AUROC, F1 and calibration error are of the upper half of the range only")
    return found


# -- figures -----------------------------------------------------------------------------------------------------------


def rows_figure(content: Mapping[str, Any]) -> Figure:
    scores = content["metrics"]["scores"]
    figure, axis = _axes(9.0, 0.6 + 0.27 * len(scores))
    for place, (name, row) in enumerate(scores.items()):
        exact = row["balanced_accuracy"]
        colour = COLOURS[0] if name.startswith(tuple(ROWS.values())) else SHADE
        axis.plot([exact["low"], exact["high"]], [place, place], color=colour, linewidth=2.0)
        axis.plot(exact["value"], place, "o", color=colour, markersize=6)
        axis.annotate(
            f"{exact['value']:.3f}", (1.02, place), xycoords=("axes fraction", "data"), va="center", color=INK
        )
    axis.axvline(0.5, color=SHADE, linewidth=1, linestyle="--")
    axis.set_yticks(range(len(scores)), list(scores))
    axis.set_ylim(len(scores) - 0.5, -0.5)
    axis.set_xlim(min(0.4, *(row["balanced_accuracy"]["low"] for row in scores.values())), 1.005)
    axis.set_xlabel("balanced accuracy")
    return figure


def roc_figure(outcome: Outcome) -> Figure:
    figure, axis = _axes(4.4, 4.2)
    label = crossvalidate.upper_half(outcome)
    axis.plot([0, 1], [0, 1], color=SHADE, linewidth=1, linestyle="--")
    for colour, name in zip(COLOURS, [name for name in LINES if name in outcome.raw], strict=False):
        values = _decided(outcome, name)
        order = np.argsort(-values, kind="stable")
        # Windows with the same figure cross the threshold together.
        last = np.append(np.diff(values[order]) != 0, True)
        found = np.concatenate([[0.0], np.cumsum(label[order] == 1)[last] / (label == 1).sum()])
        taken = np.concatenate([[0.0], np.cumsum(label[order] == 0)[last] / (label == 0).sum()])
        axis.plot(taken, found, color=colour, linewidth=1.8, label=f"{name}, {evaluate.auroc(label, values):.3f}")
    axis.set(xlabel="of the others", ylabel="found", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    _legend(axis, "lower right")
    return figure


def reliability_figure(outcome: Outcome, bins: int = 10) -> Figure:
    figure, axis = _axes(4.4, 4.2)
    label = crossvalidate.upper_half(outcome)
    _, upper = crossvalidate.nested(outcome, outcome.raw[FUSED], np.ones(len(label), np.bool_))
    weight = evaluate.class_weights(label)
    part = np.minimum((upper * bins).astype(int), bins - 1)
    total = np.bincount(part, weight, bins)
    there = total > 0
    claimed = np.bincount(part, weight * upper, bins)[there] / total[there]
    true = np.bincount(part, weight * label, bins)[there] / total[there]
    axis.bar((np.arange(bins) + 0.5) / bins, total / total.sum(), 0.9 / bins, color=SHADE, alpha=0.35)
    axis.plot([0, 1], [0, 1], color=SHADE, linewidth=1, linestyle="--")
    axis.plot(claimed, true, "o-", color=COLOURS[0], linewidth=1.5, markersize=6)
    axis.set(xlabel="stated probability", ylabel="how often it is so", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axis.set_aspect("equal")
    return figure


def confusion_figure(outcome: Outcome) -> Figure:
    figure, axis = _axes(4.4, 4.2)
    label = crossvalidate.upper_half(outcome)
    taken = (_decided(outcome, FUSED) > evaluate.THRESHOLD).astype(int)
    low, high = outcome.target.range
    names = [f"{low:g}", f"{high:g}"] if outcome.target.kind == "binary" else ["lower half", "upper half"]
    counts = np.array([[int(((label == i) & (taken == j)).sum()) for j in (0, 1)] for i in (0, 1)])
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for i in (0, 1):
        for j in (0, 1):
            axis.add_patch(
                mpl.patches.Rectangle((j, i), 1, 1, facecolor=COLOURS[0], alpha=0.08 + 0.6 * float(share[i, j]))
            )
            axis.text(
                j + 0.5, i + 0.5, f"{100 * share[i, j]:.0f} %\n{counts[i, j]}", ha="center", va="center", color=INK
            )
    axis.set(xlim=(0, 2), ylim=(2, 0), xlabel="taken for", ylabel="was", aspect="equal")
    axis.set_xticks([0.5, 1.5], names)
    axis.set_yticks([0.5, 1.5], names)
    axis.tick_params(length=0)
    return figure


def values_figure(outcome: Outcome) -> Figure:
    figure, axis = _axes(4.4, 4.2)
    expected, _ = crossvalidate.nested(outcome, outcome.raw[FUSED], np.ones(len(outcome.label), np.bool_))
    shaken = 0.015 * (outcome.target.range[1] - outcome.target.range[0])
    told = outcome.value + np.random.default_rng(0).uniform(-shaken, shaken, len(expected))
    axis.plot(outcome.target.range, outcome.target.range, color=SHADE, linewidth=1, linestyle="--")
    axis.plot(told, expected, "o", color=COLOURS[0], alpha=0.35, markersize=4, markeredgewidth=0)
    axis.set(xlabel="told", ylabel="estimated", aspect="equal")
    return figure


def people_figure(content: Mapping[str, Any]) -> Figure:
    people = content["metrics"]["per_person"]
    order = sorted(people, key=lambda who: (people[who]["balanced_accuracy"] or 0.0, people[who]["auroc"] or 0.0))
    figure, axis = _axes(9.0, 0.9 + 0.2 * len(order))
    for place, who in enumerate(order):
        for key, marker in (("auroc", "D"), ("balanced_accuracy", "o")):
            if people[who][key] is not None:
                axis.plot(people[who][key], place, marker, **MARKS[key])
    axis.axvline(0.5, color=SHADE, linewidth=1, linestyle="--")
    axis.plot([], [], "o", **MARKS["balanced_accuracy"], label="balanced accuracy")
    axis.plot([], [], "D", **MARKS["auroc"], label="AUROC")
    axis.set_yticks(range(len(order)), order)
    axis.set(xlim=(-0.01, 1.01), ylim=(len(order) - 0.5, -0.5))
    _legend(axis, "lower left")
    return figure


def moved_figure(content: Mapping[str, Any]) -> Figure:
    moved = content["metrics"]["moved"]
    figure, axis = _axes(9.0, 0.7 + 0.3 * len(moved))
    for place, one in enumerate(moved.values()):
        axis.barh(place, one["value"], 0.6, color=COLOURS[0], alpha=0.8)
        if one["low"] is not None:
            axis.plot([one["low"], one["high"]], [place, place], color=INK, linewidth=1.2)
    axis.axvline(0.0, color=SHADE, linewidth=1)
    axis.set_yticks(range(len(moved)), list(moved))
    axis.set_ylim(len(moved) - 0.5, -0.5)
    axis.set_xlabel("lost")
    return figure


def _decided(outcome: Outcome, name: str) -> NDArray[np.float64]:
    """What is compared with 0, as in the scores."""
    raw = outcome.raw[name]
    if outcome.target.kind == "binary":
        return raw
    expected, _ = crossvalidate.nested(outcome, raw, np.ones(len(raw), np.bool_))
    return expected - 0.5 * sum(outcome.target.range)


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axis = figure.subplots()
    axis.patch.set_alpha(0.0)
    for side in axis.spines.values():
        side.set_color(SHADE)
    axis.tick_params(colors=INK, labelsize=9, color=SHADE)
    axis.xaxis.label.set_color(INK)
    axis.yaxis.label.set_color(INK)
    return figure, axis


def _legend(axis: Axes, where: Literal["lower right", "lower left"]) -> None:
    axis.legend(loc=where, fontsize=8, labelcolor=INK, framealpha=0.0, edgecolor="none")


def svg(name: str, figure: Figure) -> str:
    """A figure as SVG to stand inside a page, where each ``name`` occurs once; the same figure gives the same text."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name, "font.family": "sans-serif"}):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = text.replace(INK, "currentColor")
    # Ids such as axes_1 would occur in every figure.
    return text.replace('<g id="', f'<g id="{name}-').replace("<svg ", '<svg role="img" ', 1)


# -- tables ------------------------------------------------------------------------------------------------------------


def _figure(name: str, figure: Figure, caption: str) -> str:
    return f"<figure>{svg(name, figure)}<figcaption>{caption}</figcaption></figure>"


def _score_table(content: Mapping[str, Any]) -> str:
    scores = content["metrics"]["scores"]
    columns = [(name, key) for name, key in evaluate.COLUMNS if any(row[key] is not None for row in scores.values())]
    head = ["", *(name for name, _ in columns), "people", "windows"]
    rows = []
    for name, row in scores.items():
        figures = [
            "" if row[key] is None else f"{row[key]['value']:.3f} [{row[key]['low']:.3f}, {row[key]['high']:.3f}]"
            for _, key in columns
        ]
        rows.append([name, *figures, str(row["people"]), str(row["windows"])])
    return _table(head, rows)


def _people_table(content: Mapping[str, Any]) -> str:
    people = content["metrics"]["per_person"]
    keys = [
        (name, key)
        for name, key in (*evaluate.COLUMNS, ("absolute error", "absolute_error"))
        if any(key in row for row in people.values())
    ]
    keys = list(dict.fromkeys(keys))
    rows = [
        [who, *("" if row.get(key) is None else f"{row[key]:.3f}" for _, key in keys)] for who, row in people.items()
    ]
    return _table(["person", *(name for name, _ in keys)], rows)


def _choices(content: Mapping[str, Any]) -> str:
    if not content["chosen"]:
        return ""
    names = list(content["grid"])
    rows = [[str(one["fold"] + 1), *(str(one["settings"][name]) for name in names)] for one in content["chosen"]]
    tried = content["tried"]
    inner = [[str(value) for value in one.values()] for one in tried]
    return (
        "<p>What was chosen in each fold:</p>"
        + _table(["fold", *names], rows)
        + "<p>How good each was among the people of the network that is kept, by inner folds:</p>"
        + _table([name.replace("_", " ") for name in tried[0]], inner)
    )


def _pairs(rows: Mapping[str, object]) -> str:
    cells = "".join(
        f'<tr><th>{_text(name.replace("_", " "))}</th><td class="words">{_text(_plain(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f'<div class="wide"><table>{cells}</table></div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{_text(one)}</th>" for one in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def _weights(content: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{kind.upper()}: sha256 {about['sha256'][:12]}, of "
        + ", ".join(str(one.get("name") or one["data set"]) for one in about["data"])
        for kind, about in content["weights"].items()
    )


def _plain(value: object) -> str:
    if value is None:
        return "as above"
    return value if isinstance(value, str) else json.dumps(value)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _text(text: str) -> str:
    return html.escape(text)
