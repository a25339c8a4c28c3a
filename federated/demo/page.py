"""The page of a demo: its rounds with their certificates, and who was ejected, with the evidence (no I/O)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from federated.demo.progress import certificate_of
from federated.demo.results import is_complete

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td, th { border-bottom: 1px solid #8884; padding: .2rem .8rem; text-align: right; }
code { overflow-wrap: anywhere; }
img { max-width: 100%; }
:root { color-scheme: light dark; }
"""


def page(results: Mapping[str, Any], versions: Mapping[str, str], pictures: Sequence[str]) -> str:
    """The whole page; `pictures` are the names of files beside it."""
    peers, liars = results["settings"]["peers"], len(results["liars"])
    held = "Everything held" if is_complete(results) else "Not everything held"
    lied = f", {liars} of them lied" if liars else ""
    parts = [
        f"<h1>{held}</h1>",
        f"<p>{peers} peers trained for {results['rounds']} rounds{lied}; {results['certified']} rounds are"
        f" certified, {results['bytes_sent'] / 1e6:.1f} MB were sent in {results['seconds']:.1f} s.</p>",
        *(f'<p><img src="{escape(name)}" alt="accuracy over rounds and bytes"></p>' for name in pictures),
    ]
    for task in results["tasks"]:
        parts += _task(task)
    parts += _kills(results["kills"])
    parts.append(f"<p>{escape(', '.join(f'{name} {version}' for name, version in versions.items()))}</p>")
    body = "\n".join(parts)
    head = f'<meta charset="utf-8"><title>{held}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _task(task: Mapping[str, Any]) -> list[str]:
    accuracy = "unknown" if task["accuracy"] is None else f"{task['accuracy']:.4f}"
    agree = "All models agree." if task["digests_agree"] else "The models do not agree."
    rows = [
        (
            record["number"],
            "–" if record["accuracy"] is None else f"{record['accuracy']:.4f}",
            "skipped" if record["skipped"] else len(record["participants"]),
            f"{record['seconds']:.2f}",
            certificate_of(record),
            f"{record['phases'].get('vote', 0.0):.3f}",
            ", ".join(sorted({digest[:16] for digest in record["digests"].values()})),
        )
        for record in task["history"]
    ]
    heads = ("round", "accuracy", "updates", "seconds", "certificate", "seconds to vote", "model")
    return [
        f"<h2>{escape(task['name'])}</h2>",
        f"<p>Accuracy {accuracy}, on one machine {task['centralised_accuracy']:.4f}. {agree}</p>",
        _table(heads, rows),
        *(_ejection(ejection) for ejection in task["ejections"]),
    ]


def _ejection(ejection: Mapping[str, Any]) -> str:
    """Who was ejected and the evidence itself, which anybody can check."""
    found = "both signatures are its own" if ejection["proven"] else "missing, or false"
    evidence = json.dumps(ejection["votes"], indent=2)
    return (
        f"<h3>Ejected in round {ejection['round']}</h3>"
        f"<p><code>{escape(ejection['peer'])}</code> cast two votes that exclude each other. Evidence"
        f" <code>{escape(ejection['proof'])}</code>: {found}.</p>"
        f"<pre>{escape(evidence)}</pre><p><code>{escape(ejection['evidence'] or '')}</code></p>"
    )


def _kills(kills: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [(kill["peer"], kill["round"], kill["back_in_round"] or "–") for kill in kills]
    return ["<h2>Killed</h2>", _table(("peer", "in round", "trained again in"), rows)] if rows else []


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [_row("th", heads), *(_row("td", row) for row in rows)]
    return f"<table>{''.join(lines)}</table>"


def _row(tag: str, cells: Sequence[object]) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>\n"
