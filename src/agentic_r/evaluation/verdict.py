"""What a comparison says, in sentences, and what a data set is too small to say."""

from __future__ import annotations

from collections.abc import Sequence

from agentic_r.evaluation.measures import MEASURES
from agentic_r.evaluation.runs import Group
from agentic_r.evaluation.significance import SMALL, Contest
from agentic_r.evaluation.table import written


def spoken(found: Contest) -> str:
    """Say on a few lines how two rows differ and whether chance explains it."""
    p = found.p if found.p_holm is None else found.p_holm
    corrected = "" if found.p_holm is None else f" ({_p(found.p)} before Holm's correction)"
    lines = [
        f"{MEASURES[found.metric].head}: {found.name}",
        f"{'over':>{len(MEASURES[found.metric].head)}}  {found.over}",
        f"difference {signed(found, found.difference)}, 95 % interval "
        f"{signed(found, found.low)} to {signed(found, found.high)} "
        "(paired bootstrap clustered by root)",
        f"p = {_p(p)}{corrected} (paired randomisation test); {found.n} questions on "
        f"{found.clusters} roots, {found.changed} of which differ",
        doubt(found) or "Chance in the choice of questions hardly explains the difference.",
    ]
    return "\n".join(lines)


def doubt(found: Contest) -> str:
    """Say what the questions cannot tell; "" for a settled difference."""
    if found.settled:
        return ""
    if not found.changed:
        return "The two rows agree on every question, so nothing can be told apart."
    return (
        f"Not settled: {found.n} questions on {found.clusters} roots tell, in 4 of 5 cases, true "
        f"differences of {signed(found, found.detectable).lstrip('+')} and more."
    )


def too_small(group: Group) -> str:
    """Warn of a data set whose comparisons could miss a difference of five points; else ""."""
    loose = [c for c in group.contests if MEASURES[c.metric].fraction and c.detectable > SMALL]
    if not loose:
        return ""
    worst = max(loose, key=lambda c: c.detectable)
    return (
        f"{group.about}: {worst.n} questions are too few to tell a difference of "
        f"{100 * SMALL:.0f} points; the smallest that 4 of 5 tests would find is "
        f"{100 * worst.detectable:.1f} points ({worst.name} over {worst.over})."
    )


def contest_table(contests: Sequence[Contest]) -> str:
    """Lay comparisons out for a terminal, one line each; empty for none."""
    if not contests:
        return ""
    holm = any(c.p_holm is not None for c in contests)
    cells = [
        ["", "difference", "95 % interval", "p", *(["p (Holm)"] if holm else []), "detectable"]
    ]
    for c in contests:
        line = [c.name, signed(c, c.difference), f"{signed(c, c.low)} to {signed(c, c.high)}"]
        line += [_p(c.p), *([_p(c.p if c.p_holm is None else c.p_holm)] if holm else [])]
        cells.append([*line, signed(c, c.detectable).lstrip("+")])
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    head = MEASURES[contests[0].metric].head
    return "\n".join([f"{head} over {contests[0].over}", *lines])


def signed(found: Contest, value: float) -> str:
    """Write a difference with its sign: fractions in points, counts as they are."""
    return ("+" if value >= 0 else "") + written(found.metric, value)


def _p(value: float) -> str:
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"
