"""The figure of trainings that were watched: does the kernel turn towards the image, and how far does it move?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from neuralfield.errors import ConfigError
from neuralfield.explain.after import After
from neuralfield.explain.explanation import Explanation
from neuralfield.viz.explain_style import WIDTH, best, colours, end_labels, mixed, panel_head, save, sheet, step_axis
from neuralfield.viz.style import plain_axes

_LEFT, _RIGHT, _CHART = 84, 270, 250  # pixels


def after_figure(explanation: Explanation, *paths: str | Path) -> None:
    """Write how kernels changed while the recommended candidate and the user's own trained; else while those did that were.

    Raises ConfigError where no training was watched, OutputError when a file cannot be written.
    """
    known = watched(explanation)
    if not known:
        raise ConfigError("no candidate's training was watched; explanation.train(name) does, and explain.verify=true")
    name = best(explanation).name
    shades = colours(explanation.candidates)
    alignment_figure(known, name if name in known else next(iter(known)), *paths, shades=shades)


def watched(explanation: Explanation) -> dict[str, After]:
    """By name, the trainings that the figure shows."""
    known = {c.name: c.after for c in explanation.candidates if c.after is not None and c.after.history}
    wanted = {best(explanation).name, *(c.name for c in explanation.candidates if c.own)}
    return {name: after for name, after in known.items() if name in wanted} or known


def alignment_figure(
    trainings: Mapping[str, After], chosen: str, *paths: str | Path, shades: Mapping[str, str] | None = None
) -> None:
    """Write the kernels' alignment with the signal and their movement, each against steps.

    Raises ConfigError for a training that was not watched, OutputError when a file cannot be written.
    """
    if any(not after.history for after in trainings.values()):
        raise ConfigError(
            "one field alone has no history; give copies from several steps: explanation.after({100: early, 2000: late})"
        )
    shades = shades or {name: mixed("#64aef2", "#063b78", 0.5) for name in trainings}
    told = trainings[chosen]
    before, end = told.target_before, told.target_after
    turned = (
        "turned towards" if end > 1.1 * before else "turned away from" if end < 0.9 * before else "kept its angle to"
    )
    title = f"Training, the kernel of {chosen} {turned} the {told.what}: alignment {before:.2f} before, {end:.2f} after"
    note = (
        "Alignment 1: the field learns this very image first; 0: it knows nothing of it. Dashed: before training. "
        "Predictions take a kernel that stands still: the more it turns, the less they know."
    ).replace("image", told.what)
    page, top = sheet(title, note, 2 * (_CHART + 54) + 100)
    panel_head(page, top, f"How well the kernel fits the {told.what}", "centred kernel-target alignment, 0 to 1")
    upper = page.axes(_LEFT, top + 54, WIDTH - _LEFT - _RIGHT, _CHART)
    second = top + 54 + _CHART + 30
    panel_head(
        page, second, "How far the kernel is from where it began", "relative to its initial size; 0: lazy training"
    )
    lower = page.axes(_LEFT, second + 54, WIDTH - _LEFT - _RIGHT, _CHART)
    for axes, height in ((upper, lambda m: m.target), (lower, lambda m: m.kernel_movement)):
        plain_axes(axes)
        ends = []
        for name, after in trainings.items():
            strong, shade = name == chosen, shades[name]
            later = [m for m in after.history if m.step > 0]
            places, values = [m.step for m in later], [height(m) for m in later]
            axes.plot(
                places, values, "-o", color=shade, linewidth=3 if strong else 1.6, markersize=6 if strong else 4,
                clip_on=False, zorder=4 if strong else 3,
            )  # fmt: skip
            if axes is upper:
                axes.axhline(after.target_before, color=shade, linewidth=1.2, linestyle=(0, (5, 4)), zorder=2)
            text = f"{values[-1]:.2f}" if axes is upper else f"{100 * values[-1]:.0f} %"
            ends.append((values[-1], f"{name}  {text}", shade, strong))
        first, last = (pick(m.step for a in trainings.values() for m in a.history if m.step > 0) for pick in (min, max))
        step_axis(axes, "training steps" if axes is lower else "")
        axes.set_xlim(first if first < last else 0.5 * first, last)
        axes.set_ylim(0, max(axes.get_ylim()[1], 1e-3))
        if axes is lower:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        end_labels(axes, ends, _RIGHT)
    upper.tick_params(labelbottom=False)
    save(page, *paths)
