"""One HTML page for a run: everything is in it, without scripts, and nothing is fetched."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from sim.report.stylesheet import STYLE
from sim.report.wording import in_words, number, size, speed

if TYPE_CHECKING:
    from sim.report.plots import Plot

MAX_TROUBLES = 200  # rows of the table; all are in metrics.json


def render(
    run: Mapping[str, Any],
    result: Mapping[str, Any],
    troubles: Sequence[Sequence[Any]],
    plots: Sequence[Plot],
    note: str | None,
) -> str:
    """The page. `run` and `result` are as in run.json and result.json; `note` says why plots are missing."""
    scenario = run["scenario"]
    title = f"{scenario['name']}: {result['peers']:,} peers, seed {result['seed']}"
    body = [
        _head(title, scenario, result),
        _section("What had to hold", _checks(result["assertions"])),
        _section("Figures", _figures(result["figures"])),
        _section("Plots", _plots(plots, note)),
        _section("What went wrong on purpose", _troubles(troubles)),
        _section("To repeat this run", _repeat(run, result)),
        _section("Parameters", _parameters(run)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _head(title: str, scenario: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    good = result["passed"]
    failed = sum(not check["holds"] for check in result["assertions"])
    word = "✓ passed" if good else f"✗ FAILED: {failed} of {len(result['assertions'])} checks"
    facts: dict[str, str] = {
        "simulated": f"{result['virtual_seconds']:,.4g} s",
        "took": f"{result['wall_seconds']:,.3g} s",
        "speed": speed(result),
        "rung": result["rung"],
        "events": number(result["events"]),
        "memory": size(result["rss_bytes"]),
    }
    if result.get("bytes_per_peer"):
        facts["memory of a peer"] = size(result["bytes_per_peer"])
    if result.get("bare_heap_events_per_second"):
        share = result["events_per_second"] / result["bare_heap_events_per_second"]
        facts["events a second"] = number(result["events_per_second"])
        facts["of a bare heap's rate"] = f"{100 * share:.3g} %"
    cells = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in facts.items()
    )
    about = f"<p>{escape(scenario['description'])}</p>" if scenario.get("description") else ""
    return (
        f"<header>\n<h1>{escape(title)}</h1>\n{about}\n"
        f'<p><span class="verdict {_class(good)}">{escape(word)}</span></p>\n'
        f'<dl class="facts">{cells}</dl>\n</header>'
    )


def _checks(checks: Iterable[Mapping[str, Any]]) -> str:
    rows = "".join(
        f'<tr><td class="word {_class(check["holds"])}">{"✓ holds" if check["holds"] else "✗ FAILED"}</td>'
        f"<td>{escape(check['name'])}</td><td>{escape(check['seen'])}</td></tr>\n"
        for check in sorted(checks, key=lambda check: bool(check["holds"]))
    )
    return _table(("", "Rule", "Seen"), rows)


def _figures(figures: Mapping[str, Any]) -> str:
    rows = "".join(
        f"<div><dt>{escape(words)}</dt><dd>{escape(value)}</dd></div>\n"
        for words, value in (in_words(name, value) for name, value in figures.items())
    )
    return f'<dl class="figures">\n{rows}</dl>'


def _plots(plots: Sequence[Plot], note: str | None) -> str:
    if note is not None:
        return f'<p class="note">{escape(note)}</p>'
    figures = "".join(
        f"<figure>{_labelled(plot)}<figcaption>{escape(plot.caption)}</figcaption></figure>\n"
        for plot in plots
    )
    return (
        f'<div class="plots">\n{figures}</div>' if plots else "<p>Nothing happened that could be drawn.</p>"
    )


def _labelled(plot: Plot) -> str:
    """The plot as one picture for those who do not see it."""
    return plot.svg.replace("<svg ", f'<svg role="img" aria-label="{escape(plot.caption)}" ', 1)


def _troubles(troubles: Sequence[Sequence[Any]]) -> str:
    if not troubles:
        return "<p>Nothing.</p>"
    rows = "".join(
        f'<tr><td class="n">{begin:,.2f}</td><td class="n">{end:,.2f}</td><td>{escape(str(what))}</td></tr>\n'
        for begin, end, what in troubles[:MAX_TROUBLES]
    )
    more = len(troubles) - MAX_TROUBLES
    rest = f"<p>and {more:,} more, in metrics.json</p>" if more > 0 else ""
    table = _table(("From (s)", "Healed at the latest (s)", "What"), rows) + rest
    summary = f"<summary>{len(troubles):,} faults and departures</summary>"
    return f"<details{' open' if len(troubles) <= 12 else ''}>{summary}{table}</details>"


def _repeat(run: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    return (
        f"<pre><code>{escape(run['command'])}</code></pre>\n"
        "<p>With the same version of the code the trace hash is the same, on any machine.</p>\n"
        + _table(
            ("", ""),
            "".join(
                f"<tr><td>{escape(name)}</td><td><code>{escape(text)}</code></td></tr>\n"
                for name, text in (
                    ("trace hash, of all that happened", result["trace_hash"]),
                    ("results hash, of what was achieved", result["results_hash"]),
                    *((f"version of {name}", text) for name, text in run["versions"].items()),
                    ("platform", run["platform"]),
                )
            ),
        )
        + '<p>Beside this page: <a href="run.json">run.json</a>, <a href="result.json">result.json</a>, '
        '<a href="metrics.json">metrics.json</a>, <a href="seconds.csv">seconds.csv</a>, '
        '<a href="rounds.csv">rounds.csv</a>, and <a href="trace">trace</a> for go-libp2p-pubsub\'s '
        "tools if it was asked for.</p>"
    )


def _parameters(run: Mapping[str, Any]) -> str:
    text = json.dumps(run["scenario"], indent=2, ensure_ascii=False)
    return f"<details><summary>The scenario in full</summary><pre><code>{escape(text)}</code></pre></details>"


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>"


def _table(head: Sequence[str], rows: str) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    top = f"<thead><tr>{cells}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table>{top}<tbody>\n{rows}</tbody></table></div>'


def _class(good: bool) -> str:
    return "good" if good else "bad"
