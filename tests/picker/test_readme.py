"""The table of what others fell into names tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
FILE = re.compile(r"`((?:picker|nginx|flow|resources)/\w+\.py)`((?:[:,] `[\w-]+`)*)")


def test_table_names_tests_that_there_are() -> None:
    named = FILE.findall((TESTS / "picker" / "README.md").read_text())
    assert len(named) >= 50
    for path, tests in named:
        source = (TESTS / path.replace("flow/", "picker/flow_control/")).read_text()
        for name in re.findall(r"`([\w-]+)`", tests):
            assert f"def {name}(" in source or f'"{name}"' in source, f"{path} has no {name}"
