"""The page: one HTML file that holds its style, its script and its data, and may load nothing."""

import base64
import hashlib
import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "page"
STYLES = ("base.css", "charts.css", "parts.css")
# In this order: each file uses only what stands before it.
SCRIPTS = (
    *("format.js", "dom.js", "data.js", "scales.js", "axes.js", "tip.js"),
    *("choice.js", "pareto.js", "winner.js", "heat.js", "ecdf.js", "lanes.js", "split.js"),
    *("bandwidth.js", "history.js", "problems.js", "header.js", "detail.js", "table.js", "main.js"),
)


def page(data: Mapping[str, Any], title: str) -> str:
    """The whole page. A policy in its head names the only script and style that may run."""
    style = "\n".join((PAGE / name).read_text() for name in STYLES)
    code = "\n".join((PAGE / name).read_text() for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{code}}})();\n'
    parts = {
        "policy": policy(script, style),
        "title": escape(title),
        "style": style,
        "data": as_script_data(data),
        "script": script,
    }
    text, pieces = (PAGE / "page.html").read_text(), []
    for name, part in parts.items():
        # From the top: a part never stands where the next one is looked for.
        before, _, text = text.partition(f"<!-- {name} -->")
        pieces += [before, part]
    return "".join([*pieces, text])


def policy(script: str, style: str) -> str:
    """A content security policy: nothing but this script and this style."""
    return f"default-src 'none'; script-src {_digest(script)}; style-src {_digest(style)}"


def as_script_data(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the element it stands in, whatever a record holds."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
