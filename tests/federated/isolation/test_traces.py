from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federated.blame import OURS
from federated.isolation.traces import where

LEARNER = f'  File "{OURS}/learner.py", line 190 in train\n'
PLUGIN = '  File "/home/me/mine.py", line 7 in _batch\n  File "/home/me/mine.py", line 30 in train\n'
LIBRARY = '  File "/lib/python3/re/__init__.py", line 166 in match\n'
FATAL = "Fatal Python error: Segmentation fault\n\nCurrent thread 0x00007f (most recent call first):\n"
STACK = "Stack (most recent call first):\n"


@pytest.mark.parametrize(
    ("trace", "line"),
    [
        ("", ""),
        ("no trace at all", ""),
        (STACK, ""),
        (STACK + LEARNER, ""),
        (STACK + PLUGIN + LEARNER, " (mine.py, line 7)"),
        (STACK + LIBRARY + PLUGIN + LEARNER, " (mine.py, line 7)"),
        (FATAL + PLUGIN + LEARNER, " (mine.py, line 7)"),
        (STACK + LIBRARY + LEARNER + FATAL + PLUGIN + LEARNER, " (mine.py, line 7)"),
        (STACK + PLUGIN, " (mine.py, line 7)"),
        (
            STACK + '  File "/home/me/mine.py", line 1 in <module>\n'
            '  File "<frozen importlib._bootstrap>", line 241 in _call_with_frames_removed\n'
            '  File "/usr/lib/python3/importlib/__init__.py", line 126 in import_module\n'
            f'  File "{OURS}/registry.py", line 150 in _import\n',
            " (mine.py, line 1)",
        ),
    ],
)
def test_the_line_of_the_plugin_is_the_innermost_one_in_the_file_that_was_called(
    trace: str, line: str
) -> None:
    assert where(trace) == line


@given(st.lists(st.one_of(st.sampled_from([LEARNER, PLUGIN, LIBRARY, FATAL, STACK]), st.text())))
def test_any_text_has_a_line_or_none(parts: list[str]) -> None:
    found = where("".join(parts))
    assert found == "" or found.startswith(" (")
