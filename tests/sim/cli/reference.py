"""The reference of scenarios, docs/reference/scenarios.md: `python -m tests.sim.cli.reference` prints it.

A table for each part of a scenario: the comments and docstrings in sim/scenario/model.py say what a field
means, its type says the rest. A test compares the document with what this makes.
"""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

from sim.adversaries import ROLES
from sim.network.geography import PRESETS
from sim.scenario import model
from sim.scenario.library import names
from sim.scenario.model import Model

HEAD = """\
# Scenarios

A scenario is a TOML file, or a `sim.scenario.model:Scenario` in Python, which is the same: who talks over
what network, what goes wrong, and what must hold. Only `name` has to be there. Unknown names are refused in
one line that says where. How to use one is in [simulate](../how-to/simulate.md).

All times are virtual seconds from the start, and a share is from 0 to 1. What is drawn at random comes from
the run's seed. This page is made from the models: `python -m tests.sim.cli.reference`.

"""

# how a part is written in TOML, the class that describes it
PARTS: tuple[tuple[str, type[Model]], ...] = (
    ("At the top", model.Scenario),
    ("`[topology]`", model.Topology),
    ("`[network]`", model.NetworkSettings),
    ("`latency = { … }` in `[network]`", model.Latency),
    ("`[[network.nat]]`", model.Nat),
    ("`[[gossip]]`", model.GossipLoad),
    ("`[[dht]]`", model.DhtLoad),
    ("`[[task]]`", model.TaskLoad),
    ("`[[churn]]`", model.Churn),
    ("`who = { … }`", model.Selection),
    ("`[[adversaries]]`", model.Adversary),
    ("`[checks]`", model.Checks),
)
MEANINGS = {  # of fields whose name says it to those who read the source
    "Scenario.name": "of the run and its folder",
    "Scenario.description": "one sentence: what it shows",
    "Scenario.rung": "how much of the stack runs",
    "Scenario.peers": "nodes",
    "Topology.kind": "the shape",
    "Topology.degree": "connections of a node, on average",
    "NetworkSettings.latency": "one way, see below",
    "NetworkSettings.down_mbit": "of each node",
    "NetworkSettings.nat": "see below",
    "Latency.kind": "how it is drawn",
    "Latency.ms": "milliseconds: all, least or median",
    "Latency.max_ms": "milliseconds, of `uniform`",
    "Latency.sigma": "of the logarithm, of `lognormal`",
    "Latency.matrix": "rows of milliseconds, of `matrix`",
    "Latency.preset": "of `geo`",
    "Nat.kind": "RFC 4787's words",
    "Nat.share": "of the nodes",
    "GossipLoad.topic": "name",
    "GossipLoad.publishers": "share of the nodes that publish",
    "GossipLoad.subscribers": "share of the nodes that listen",
    "DhtLoad.puts": "a second, of the whole network",
    "TaskLoad.name": "of the task",
    "TaskLoad.committee": "members that vote in a round",
    "TaskLoad.rounds": "how many",
    "TaskLoad.preprocessor": "plugin: loads data",
    "TaskLoad.trainer": "plugin: knows the model",
    "TaskLoad.aggregator": "plugin: one model of many updates",
    "TaskLoad.validator": "plugin: refuses updates",
    "TaskLoad.train_deadline": "seconds until a round goes on without a member",
    "TaskLoad.phase_deadline": "seconds, of each other phase of a round",
    "Churn.kind": "the distribution",
    "Churn.share": "of the nodes",
    "Churn.keep_disk": "whether they come back with their disk",
    "Selection.nodes": "numbers of nodes, from 0",
    "Selection.share": "of all nodes",
    "Selection.count": "of nodes",
    "Adversary.role": "one of those below",
    "Adversary.who": "which nodes",
    "Adversary.settings": "of the role",
    "Adversary.dials": "nodes that each of them dials, instead of a place in the topology",
    "Checks.puts": "share of puts that end well while nothing is wrong",
}
_COMMENT = re.compile(r"^    (\w+): .*?(?:  # (.*))?$", re.MULTILINE)


def comments(part: type[Model]) -> dict[str, str]:
    """What stands beside each field in the source."""
    found: dict[str, str] = {}
    for each in reversed(part.__mro__):
        if issubclass(each, Model):
            found |= {match[1]: match[2] or "" for match in _COMMENT.finditer(inspect.getsource(each))}
    return found


def number(value: float) -> str:
    """With commas, without needless digits."""
    return f"{int(value):,}" if value == int(value) else f"{value:g}"


def bounds(schema: dict[str, Any]) -> str:
    """Which values a field may have, in words."""
    if "anyOf" in schema:
        inner = [one for one in schema["anyOf"] if one.get("type") != "null"]
        text = " or ".join(bounds(one) for one in inner)
        return f"{text}; in Python also None, not judged" if len(inner) == 1 else text
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    begin = number(low) if low is not None else f"over {number(above)}" if above is not None else ""
    end = (
        f"to {number(high)}" if high is not None else f"to under {number(below)}" if below is not None else ""
    )
    if begin and not end:
        end = "or more" if low is not None else ""
    kinds = {"boolean": "`true` or `false`", "string": "text", "array": "a list", "object": "a table"}
    text = f"{begin} {end}".strip() or kinds.get(schema.get("type", ""), "a table")
    if (pattern := schema.get("pattern")) is not None:
        text = f"text like `{pattern}`"
    return f"whole, {text}" if schema.get("type") == "integer" else text


def default(value: Any, schema: dict[str, Any]) -> str:
    """The default as TOML has it."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"{value:g}"
    if isinstance(value, str):
        return f'`"{value}"`'
    return "none" if value is None or not value or "$ref" in schema else "as below"


def table(part: type[Model]) -> str:
    """A row for each field."""
    said, schema = comments(part), part.model_json_schema()
    rows = ["| Field | Meaning | Default | Values |", "|---|---|---|---|"]
    for name, field in part.model_fields.items():
        of = schema["properties"][name]
        if name == "kind" and len(of.get("enum", ())) == 0 and "const" in of:
            continue
        usual = {"start": "when it begins", "seconds": "how long it lasts"}.get(name, f"see `{name}` below")
        meaning = said.get(name) or MEANINGS.get(f"{part.__name__}.{name}", usual)
        given = (
            "required" if field.is_required() else default(field.get_default(call_default_factory=True), of)
        )
        rows.append(f"| `{name}` | {meaning.replace('|', '/')} | {given} | {bounds(of)} |")
    return "\n".join(rows)


def faults() -> str:
    """One section for all kinds of faults."""
    kinds = get_args(get_args(model.AnyFault)[0])
    text = f"## `[[faults]]`\n\n{inspect.getdoc(model.Fault)} Each has `kind`, `at`, `seconds` and `who`.\n\n"
    rows = ["| `kind` | What happens | Fields of its own |", "|---|---|---|"]
    for kind in kinds:
        said, schema = comments(kind), kind.model_json_schema()["properties"]
        own = [name for name in kind.model_fields if name not in ("kind", "who", "at", "seconds")]
        fields = [
            f"`{name}`{said[name] and ': ' + said[name]} ({bounds(schema[name])}; "
            + (
                "required)"
                if kind.model_fields[name].is_required()
                else f"default {default(kind.model_fields[name].default, schema[name])})"
            )
            for name in own
        ]
        doc = " ".join((inspect.getdoc(kind) or "").split())
        rows.append(f"| `{kind.model_fields['kind'].default}` | {doc} | {'<br>'.join(fields)} |")
    return text + "\n".join(rows) + "\n"


def document() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, part in PARTS:
        doc = " ".join((inspect.getdoc(part) or "").split())
        parts.append(f"## {title}\n\n{doc}\n\n{table(part)}\n\n")
        if part is model.Churn:
            parts.append(faults() + "\n")
        if part is model.Latency:
            parts.append(f"Presets: {', '.join(f'`{name}`' for name in PRESETS)}.\n\n")
        if part is model.Adversary:
            rows = "\n".join(f"| `{name}` | {role.description} |" for name, role in ROLES.items())
            parts.append(f"| Role | What such a node does |\n|---|---|\n{rows}\n\n")
    rows = "\n".join(f"| `{name}` | {description} |" for name, description in names().items())
    parts.append(f"## Shipped scenarios\n\n| Name | What it shows |\n|---|---|\n{rows}\n")
    return "".join(parts)


if __name__ == "__main__":
    print(document(), end="")
