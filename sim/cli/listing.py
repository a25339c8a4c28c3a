"""`python -m sim list`: what there is to run."""

from __future__ import annotations

import argparse
import json
import textwrap

from sim.adversaries import ROLES
from sim.scenario.library import names


def show(arguments: argparse.Namespace) -> int:
    """Names the scenarios and the roles of adversaries."""
    parts = {"scenario": names(), "role": {name: role.description for name, role in ROLES.items()}}
    for kind, described in parts.items():
        if not arguments.json:
            print(f"{kind}s:")
        for name, description in described.items():
            if arguments.json:
                print(json.dumps({"event": kind, "name": name, "description": description}))
            else:
                print(textwrap.fill(f"  {name:<18} {description}", 108, subsequent_indent=" " * 21))
    return 0
