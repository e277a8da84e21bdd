"""A comparison as files: JSON, Markdown, JUnit, and what github-action-benchmark reads."""

import json
import os
from pathlib import Path
from xml.etree import ElementTree

from harness.comparing.finding import Comparison, Finding
from harness.comparing.table import markdown, row
from harness.stored.files import replace_durably

VERDICT, SUMMARY, JUNIT, BENCHMARK = "verdict.json", "summary.md", "junit.xml", "benchmark.json"
STEP_SUMMARY = "GITHUB_STEP_SUMMARY"
FAILURES = frozenset({"regression"})
ERRORS = frozenset({"errored", "not_comparable"})
SKIPPED = frozenset({"inconclusive", "insufficient_n", "suspicious", "new", "removed"})


def write(comparison: Comparison, out: Path) -> None:
    """Write all of them to a folder, each whole or not at all."""
    texts = {
        VERDICT: comparison.model_dump_json(indent=1) + "\n",
        SUMMARY: markdown(comparison),
        JUNIT: junit(comparison),
        BENCHMARK: json.dumps(benchmark(comparison), indent=1, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        replace_durably(out / name, text.encode())


def append_step_summary(comparison: Comparison) -> None:
    """Add the Markdown to the summary of a job on GitHub, where there is one."""
    named = os.environ.get(STEP_SUMMARY)
    if named:
        with Path(named).open("a") as file:
            file.write(markdown(comparison))


def junit(comparison: Comparison) -> str:
    """A test suite for each cell, in it a test case for each metric."""
    root = ElementTree.Element("testsuites", name="kvloom compare")
    cells: dict[str, list[Finding]] = {}
    for finding in comparison.findings:
        cells.setdefault(finding.cell, []).append(finding)
    for cell, findings in cells.items():
        suite = ElementTree.SubElement(root, "testsuite", name=f"{findings[0].label} ({cell})")
        for key, group in (("failures", FAILURES), ("errors", ERRORS), ("skipped", SKIPPED)):
            suite.set(key, str(sum(_outcome(one) in group for one in findings)))
        suite.set("tests", str(len(findings)))
        for finding in findings:
            _case(suite, finding)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def benchmark(comparison: Comparison) -> list[dict[str, object]]:
    """The candidate's values of which less is better, as `customSmallerIsBetter` has them."""
    return [
        {
            "name": f"{finding.label} ({finding.cell}): {finding.metric}",
            "unit": finding.unit,
            "value": finding.candidate,
            "extra": f"{finding.found}, base {finding.base}",
        }
        for finding in comparison.findings
        if finding.candidate is not None and finding.kind in ("latency", "counter")
        if finding.unit in ("ms", "bytes", "pages")
    ]


def _outcome(finding: Finding) -> str:
    """The class, as far as it counts: what only shows is never a failure."""
    return finding.found if finding.gated or finding.found not in FAILURES else "inconclusive"


def _case(suite: ElementTree.Element, finding: Finding) -> None:
    case = ElementTree.SubElement(
        suite, "testcase", classname=f"{finding.label}.{finding.kind}", name=finding.metric
    )
    said = f"{finding.found}: {' | '.join(part for part in row(finding)[1:-1] if part)}"
    message = f"{said} {finding.detail}".strip()
    for tag, group in (("failure", FAILURES), ("error", ERRORS), ("skipped", SKIPPED)):
        if _outcome(finding) in group:
            ElementTree.SubElement(case, tag, message=message)
