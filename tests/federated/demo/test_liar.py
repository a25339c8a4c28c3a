from __future__ import annotations

import pytest

from federated.demo.liar import main


@pytest.mark.parametrize("arguments", [[], ["--listen", "nonsense"], ["--data-dir", "/dev/null/x"]])
def test_unusable_input_is_one_line_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1
