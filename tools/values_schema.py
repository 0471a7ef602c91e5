"""What the chart's values say of GatewayParameters, from the models: `python -m tools.values_schema [--check]`.

The rest of values.schema.json is written by hand. Helm looks at no definition of a resource before it sends one, and an
API server drops fields that it does not know.
"""

import argparse
import json
import sys
from typing import Final

from controller.resources.parameters import GatewayParametersSpec
from tools.crds import CHART, Schema, structural

FILE: Final = CHART.parent / "values.schema.json"

_START: Final = '  "$defs": '
"""The last member of the file. It alone is generated."""
_UNKNOWN: Final = ("default", "description", "format")
"""Keywords of definitions that check nothing here."""


def values_schema(text: str) -> str:
    """The file with what the models give."""
    head, _, _ = text.partition(_START)
    made = json.dumps({"gatewayParameters": _plain(structural(GatewayParametersSpec))}, indent=2)
    return f"{head}{_START}{made.replace(chr(10), chr(10) + '  ')}\n}}\n"


def _plain(schema: Schema) -> Schema:
    """A structural schema in words of JSON schema, where only fields that are named are accepted.

    Rules in CEL are left to the API server.
    """
    found = {key: value for key, value in schema.items() if key not in _UNKNOWN and not key.startswith("x-kubernetes-")}
    if "x-kubernetes-int-or-string" in schema:
        found["type"] = ["integer", "string"]
    if "properties" in schema:
        found["properties"] = {name: _plain(each) for name, each in schema["properties"].items()}
        found["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        if name in schema:
            found[name] = _plain(schema[name])
    return found


def main() -> int:
    """Write the file, or with --check compare it; 1 when it differs."""
    parser = argparse.ArgumentParser(prog="python -m tools.values_schema", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the file differs")
    check = parser.parse_args().check
    before = FILE.read_text()
    after = values_schema(before)
    if after == before:
        return 0
    print(f"{FILE.name}: {'differs from the models' if check else 'written'}")
    if not check:
        FILE.write_text(after)
    return int(check)


if __name__ == "__main__":
    sys.exit(main())
