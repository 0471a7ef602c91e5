import shlex
from pathlib import Path

from controller.demo.guide import guide


def test_command_for_a_directory_with_a_space_can_be_pasted() -> None:
    said = guide(port=8080, directory=Path("my demo"), access_log=Path("access.log"))
    (edit,) = (line for line in said.splitlines() if "sed -i" in line)
    assert shlex.split(edit)[-1] == "my demo/routes.yaml"
