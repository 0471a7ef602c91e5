"""Each file of tests/broken has documents that are refused as its `# expect:` lines say, and a good one that stays."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from controller.provider.file import read
from controller.provider.reader import Reader
from controller.provider.yaml_documents import PARSER, Parser
from controller.resources.core import ConfigMap
from controller.resources.snapshot import Snapshot

BROKEN = Path(__file__).parent.parent / "broken"
FILES = sorted(BROKEN.glob("*.yaml"))


@dataclass(frozen=True)
class Expected:
    subject: str
    field: str
    message: str


def expectations(path: Path) -> list[Expected]:
    """`# expect: subject | field | part of the message`, one line for each rejection."""
    lines = path.read_text(errors="replace").splitlines()
    rows = [line.removeprefix("# expect: ").split(" | ") for line in lines if line.startswith("# expect: ")]
    return [Expected(subject.strip(), field.strip(), message.strip()) for subject, field, message in rows]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_broken_document_is_refused_and_the_good_one_stays(path: Path) -> None:
    _check(read(path), path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_parser_in_python_refuses_the_same(path: Path) -> None:
    _check(Reader(path, parser=yaml.SafeLoader).read(), path)


def test_all_broken_files_in_one_directory_do_not_disturb_each_other(tmp_path: Path) -> None:
    for path in FILES:
        shutil.copy(path, tmp_path)

    found = read(tmp_path)

    files = {each.source.partition(":")[0] for each in found.rejections}
    assert files == {path.name for path in FILES}
    assert "good" in [each.metadata.name for each in found.of(ConfigMap)]


@pytest.mark.parametrize("parser", [PARSER, yaml.SafeLoader], ids=["c", "python"])
def test_secret_of_a_broken_document_is_not_told(parser: Parser) -> None:
    for path in BROKEN.glob("secret-*.yaml"):
        rejections = Reader(path, parser=parser).read().rejections

        assert "hunter2" not in str(rejections)


def _check(found: Snapshot, path: Path) -> None:
    expected = expectations(path)
    assert expected
    assert "good" in [each.metadata.name for each in found.of(ConfigMap)]
    assert len(found.rejections) == len(expected), [str(each) for each in found.rejections]
    for each in expected:
        [match] = [item for item in found.rejections if (item.subject, item.field) == (each.subject, each.field)]
        assert each.message in match.message
        assert match.source.startswith(f"{path.name}:")
        assert len(str(match)) < 1200
        assert "\n" not in str(match)
