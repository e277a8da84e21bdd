"""A comparison as text: a table for the terminal, and Markdown for a job's summary."""

from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.comparing.finding import OK, Comparison, Finding

STYLES = {
    "regression": "bold red",
    "errored": "bold red",
    "not_comparable": "magenta",
    "suspicious": "yellow",
    "improvement": "green",
}
# Units that a reader sees from the name.
UNNAMED = frozenset({"", "score", "fraction", "ratio"})
HEADINGS = ("metric", "base", "candidate", "change", "interval", "verdict")


def render(comparison: Comparison, console: Console) -> None:
    """Print what was found, cell by cell."""
    for label, findings in cells(comparison).items():
        shown = Table(
            *HEADINGS,
            title=label,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for column in shown.columns:
            column.overflow = "fold"
        # How it ended stays readable on the narrowest terminal.
        shown.columns[-1].width = max(len(row(finding)[-1]) for finding in findings)
        for finding in told(findings):
            style = STYLES.get(finding.found, "" if finding.gated else "dim")
            shown.add_row(*map(Text, row(finding)), style=style)
        console.print(shown)
    for line in (*remarks(comparison), *comparison.notes, summary(comparison)):
        console.print(Text(line), soft_wrap=True)


def markdown(comparison: Comparison) -> str:
    """The same for a page: a table for each cell, under one line that says how it ended."""
    lines = [f"## {summary(comparison)}", ""]
    for label, findings in cells(comparison).items():
        lines += [f"### {label}", "", _line(HEADINGS), _line(["---"] * len(HEADINGS))]
        lines += [_line(row(finding)) for finding in told(findings)]
        lines.append("")
    lines += [f"- {line}" for line in (*remarks(comparison), *comparison.notes)]
    return "\n".join(lines) + "\n"


def cells(comparison: Comparison) -> dict[str, list[Finding]]:
    """Findings by what their cell is."""
    found: dict[str, list[Finding]] = {}
    for finding in comparison.findings:
        found.setdefault(f"{finding.label} ({finding.cell})", []).append(finding)
    return found


def told(findings: Iterable[Finding]) -> list[Finding]:
    """Those that get a row: counters that are equal get one line together."""
    return [one for one in findings if not _is_equal_counter(one)]


def row(finding: Finding) -> tuple[str, ...]:
    """One finding as cells of a table."""
    difference = finding.kind == "accuracy"
    interval = ""
    if finding.lower is not None and finding.upper is not None:
        ends = (finding.lower, finding.upper)
        interval = ", ".join(_change(end, difference).removesuffix(" %") for end in ends)
        interval = f"[{interval}]" if difference else f"[{interval}] %"
    return (
        finding.metric,
        _value(finding.base, finding.unit),
        _value(finding.candidate, ""),
        _change(finding.change, difference),
        interval,
        finding.found if finding.gated else f"({finding.found})",
    )


def remarks(comparison: Comparison) -> list[str]:
    """What the numbers of each finding stand on, in words."""
    lines = []
    equal = [one.metric for one in comparison.findings if _is_equal_counter(one)]
    if equal:
        lines.append(f"{len(equal)} counters are equal: {', '.join(dict.fromkeys(equal))}")
    for finding in comparison.findings:
        said = [finding.detail] if finding.detail else []
        if finding.kind == "latency" and finding.gated:
            said += _power(finding)
        if finding.needed is not None:
            unit = "rounds" if finding.kind == "latency" else "requests"
            said.append(f"about {finding.needed} {unit} would settle it")
        if said:
            lines.append(f"{finding.metric}: {'; '.join(said)}")
    return lines


def summary(comparison: Comparison) -> str:
    """How it ended, in one line."""
    counts: dict[str, int] = {}
    for finding in comparison.findings:
        if finding.gated:
            counts[finding.found] = counts.get(finding.found, 0) + 1
    ended = "passed" if comparison.exit_code == OK else f"exit {comparison.exit_code}"
    found = ", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing compared"
    return f"{comparison.candidate.name} against {comparison.base.name}: {ended}: {found}"


def _is_equal_counter(finding: Finding) -> bool:
    return finding.kind == "counter" and finding.found == "unchanged"


def _power(finding: Finding) -> list[str]:
    said = []
    if finding.margin is not None:
        said.append(f"margin {_change(finding.margin, False).removeprefix('+')}")
    if finding.detectable is not None:
        said.append(f"{finding.n} rounds find {_change(finding.detectable, False)} or more")
    if finding.p is not None:
        said.append(f"p {finding.p:.2g}")
    if finding.p_sign_flip is not None:
        said.append(f"sign flip {finding.p_sign_flip:.2g}")
    return said


def _line(parts: "list[str] | tuple[str, ...]") -> str:
    return "| " + " | ".join(part.replace("|", "/") for part in parts) + " |"


def _value(value: float | None, unit: str) -> str:
    shown = "" if unit in UNNAMED else f" {unit}"
    return "-" if value is None else f"{value:,.4g}{shown}"


def _change(value: float | None, difference: bool) -> str:
    if value is None:
        return ""
    return f"{value:+.3f}" if difference else f"{100 * value:+.1f} %"
