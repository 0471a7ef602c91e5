"""The table of plugins in the documentation; `pytest tests/plugins/test_docs.py --update-cases` writes it anew."""

from pathlib import Path

import pytest
import yaml

from controller.plugins.catalogue import BUILT_IN, Kind, Plugin
from controller.plugins.parameters import Mark
from controller.plugins.parse import parse
from controller.resources.kinds import read
from controller.resources.policies import PickerPolicy

PAGE = Path(__file__).parents[2] / "docs" / "picker-policy.md"
BEGIN, END = "<!-- plugins -->\n", "<!-- end of plugins -->\n"


def test_table_lists_the_plugins_that_there_are(request: pytest.FixtureRequest) -> None:
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    shown, _, tail = rest.partition(END)
    if request.config.getoption("--update-cases"):
        shown = f"\n{_table()}\n"
        PAGE.write_text(f"{head}{BEGIN}{shown}{END}{tail}")
    assert shown == f"\n{_table()}\n", "the table differs; see the top of this file"


def test_policies_of_the_page_are_accepted() -> None:
    blocks = [piece.partition("```")[0] for piece in PAGE.read_text().split("```yaml\n")[1:]]
    policies = [read(document, index=1) for block in blocks for document in yaml.safe_load_all(block)]
    found = [policy for policy in policies if isinstance(policy, PickerPolicy)]

    assert found
    assert all(not isinstance(parse(policy.spec.config), tuple) for policy in found)


def _table() -> str:
    rows = ["| type | kind | does | parameters |", "| --- | --- | --- | --- |"]
    rows += [_row(plugin) for plugin in BUILT_IN.plugins if Kind.NO_EFFECT not in plugin.kinds]
    idle = ", ".join(f"`{plugin.type}`" for plugin in BUILT_IN.plugins if Kind.NO_EFFECT in plugin.kinds)
    return "\n".join([*rows, "", f"Accepted, because what they stand for is done anyway: {idle}.", ""])


def _row(plugin: Plugin) -> str:
    kinds = ", ".join(plugin.kinds)
    former = f" (was {', '.join(f'`{name}`' for name in plugin.aliases)})" if plugin.aliases else ""
    return f"| `{plugin.type}`{former} | {kinds} | {plugin.summary} | {_parameters(plugin)} |"


def _parameters(plugin: Plugin) -> str:
    return ", ".join(
        f"`{item.alias}`{_default(item.default)}"
        for item in plugin.parameters.model_fields.values()
        if not any(isinstance(mark, Mark) for mark in item.metadata)
    )


def _default(value: object) -> str:
    if isinstance(value, bool):
        return f" {str(value).lower()}"
    if isinstance(value, int | float):
        return f" {value:g}" if isinstance(value, float) and value < 1e5 else f" {value}"
    return f" {value}" if isinstance(value, str) else ""
