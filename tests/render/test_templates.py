"""Templates write no value of a resource without a quoting function."""

import re
from pathlib import Path

import pytest

from controller.render.environment import files_directory

QUOTING = ("text", "literal", "map_key", "regex", "comment")
MADE_HERE = (
    # Values that are no text of a user: numbers, names derived from keys, arguments that are quoted already.
    r"settings\.(worker_processes|worker_connections|max_open_files|max_body_size|max_large_requests|rewritten_memory)",
    r"view\.server\.max_body_size",
    r"(entry|exact|place|exit|header|filter|rule|backend|choice|copy|cors|gate|origins|flag|item|map|server|endpoint|pool|port|view|location|sticky)(\.\w+)*\."
    r"(name|value|header|key|weights|location|listener|serve_location|rewritten_location|relayed_location|models_location|upstream|source|variable|default|place|chooser|target"
    r"|split_variable|fine_source|sample_variable|origin|port"
    r"|server|file|handed_to|index|listen|module|path|socket|status|id)",
    r"next|loop\.index0|loop\.index \+ 1|retry\.caught \| join\(\" \"\)"
    r"|address|header|keepalive|script|module|named|listener|location|value|variable|name|share|shared|chain|key|status|port\.port|endpoint\.address|filter\.status",
    # Calls of macros, whose own values are looked at where they stand.
    r"(added|body|changed_path|client_validation|headers|mirror_location|mirrored|named_locations|paused|picked_in_time"
    r"|preflight|redirect|refused|relayed|remembered|remembered_block|retried|rewrite|scheme|secured|secured_stream|called|sent"
    r"|split|timeouts|title|tried"
    r"|unknown_client)\(.*\)|body",
    r"(exit|server|view)\.client_certificate\[\d\]",
    r"((view\.)?tls|view)\.authorities|backend\.endpoint_variable( or .*)?",
    r"upstream(\.name)?",
    r"item\.variable ~ .*|item\.values\[.*\]",
    r"rule\.rule\.route\.path|(entry\.asks or )?view\.targets\[\w+\.rule\.id\]|backend\.target\.pool|pool\.pool\.name",
    r"backend\.timeouts\.\w+ \| milliseconds",
    r'"[^"]*" (if|~) .*',
    r"rule\.redirect\.scheme or .*|rule\.redirect\.status",
)


def _expressions() -> list[tuple[str, str]]:
    root = files_directory() / "templates"
    return [
        (path.relative_to(root).as_posix(), found.strip())
        for path in sorted(root.rglob("*.j2"))
        for found in re.findall(r"\{\{(.*?)\}\}", path.read_text())
    ]


@pytest.mark.parametrize(("template", "expression"), _expressions())
def test_value_is_quoted_or_made_by_the_renderer(template: str, expression: str) -> None:
    is_quoted = any(re.search(rf"\|\s*(map\(\")?{name}\b", expression) for name in QUOTING)
    assert is_quoted or any(re.fullmatch(pattern, expression) for pattern in MADE_HERE), template


def test_no_template_writes_a_quote_around_a_value() -> None:
    for path in sorted((files_directory() / "templates").rglob("*.j2")):
        assert not re.search(r"""["']\{\{\s*""", Path(path).read_text()), path
