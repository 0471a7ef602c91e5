"""What one reading of a directory gives."""

import os
from pathlib import Path

import pytest

from controller.errors import InputUnreadable
from controller.provider.file import read
from controller.provider.reader import Reader
from controller.resources.core import ConfigMap, Secret
from controller.resources.gateway_api import GatewayClass, HTTPRoute
from controller.resources.meta import EPOCH


def config_map(name: str, **data: str) -> str:
    lines = "".join(f"  {key}: {value!r}\n" for key, value in data.items())
    return f"---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n{lines or '  {}'}\n"


def names(directory: Path) -> list[str]:
    return [each.metadata.name for each in read(directory).of(ConfigMap)]


def write(directory: Path, **files: str) -> None:
    """Files by their names, in which `__` stands for a dot."""
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


def test_files_with_the_three_suffixes_are_read_and_others_not(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", "d.txt", ".e.yaml", "f.yaml~", ".#g.yaml", "#h.yaml#", "i.yaml.swp"):
        text = config_map(name[0] if name[0].isalpha() else name[1])
        (tmp_path / name).write_text(
            '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}' * (name[0] == "c") or text
        )

    assert names(tmp_path) == ["a", "b", "c"]


def test_directories_below_are_read_and_hidden_ones_not(tmp_path: Path) -> None:
    for directory in ("one/two", ".git", "..data"):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / "a.yaml").write_text(config_map(directory.strip(".").replace("/", "-")))

    found = read(tmp_path)

    assert [each.metadata.name for each in found.of(ConfigMap)] == ["one-two"]
    assert ("one/two/a.yaml:2") in dict(found.sources).values()


def test_mounted_config_map_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "..2025").mkdir()
    (tmp_path / "..2025" / "a.yaml").write_text(config_map("a"))
    (tmp_path / "..data").symlink_to("..2025")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")

    found = read(tmp_path)

    assert [each.metadata.name for each in found.of(ConfigMap)] == ["a"]
    assert found.rejections == ()


def test_links_that_go_in_circles_or_nowhere_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=config_map("a"))
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "b.yaml").symlink_to("a.yaml")
    (tmp_path / "nowhere.yaml").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe.yaml")

    assert names(tmp_path) == ["a"]
    assert read(tmp_path).rejections == ()


def test_one_file_is_read_by_its_path(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=config_map("a"), b__yaml=config_map("b"))

    assert names(tmp_path / "a.yaml") == ["a"]


def test_directory_that_does_not_exist_is_unreadable(tmp_path: Path) -> None:
    with pytest.raises(InputUnreadable, match="missing does not exist"):
        read(tmp_path / "missing")


def test_empty_directory_has_the_class_only(tmp_path: Path) -> None:
    [only] = read(tmp_path).resources

    assert isinstance(only, GatewayClass)
    assert (only.metadata.name, only.spec.controller_name) == ("infergate", "infergate.dev/gateway-controller")


@pytest.mark.parametrize(
    ("name", "controller", "classes"),
    [
        ("mine", "infergate.dev/gateway-controller", ["mine"]),
        ("other", "example.com/controller", ["infergate", "other"]),
        ("infergate", "example.com/controller", ["infergate"]),
    ],
)
def test_class_is_added_when_none_is_ours(tmp_path: Path, name: str, controller: str, classes: list[str]) -> None:
    text = (
        f"apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\n"
        f"metadata: {{name: {name}, namespace: dropped}}\nspec: {{controllerName: {controller}}}\n"
    )
    write(tmp_path, a__yaml=text)

    found = list(read(tmp_path).of(GatewayClass))

    assert [each.metadata.name for each in found] == classes
    assert {each.metadata.namespace for each in found} == {""}


def test_first_of_two_with_one_name_stays(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=config_map("x", at="a"), b__yaml=config_map("y") + config_map("x", at="b"))

    found = read(tmp_path)

    assert [each.data["at"] for each in found.of(ConfigMap) if each.metadata.name == "x"] == ["a"]
    [rejection] = found.rejections
    assert str(rejection) == (
        "b.yaml:9: ConfigMap default/x: metadata.name: is defined at a.yaml:2 already, which stays"
    )


def test_namespace_age_and_generation_have_defaults(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=config_map("a"))

    [found] = read(tmp_path).of(ConfigMap)

    assert found.metadata.namespace == "default"
    assert found.metadata.creation_timestamp == EPOCH
    assert found.metadata.generation == 1


def test_kinds_that_are_for_others_are_counted(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__yaml="apiVersion: apps/v1\nkind: Deployment\n---\n\napiVersion: v1\nkind: ServiceAccount\n",
    )

    found = read(tmp_path)

    assert found.ignored == (("a.yaml:1", "apps/v1 Deployment"), ("a.yaml:5", "v1 ServiceAccount"))
    assert found.rejections == ()


def test_lists_are_their_items(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__yaml="""\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: a}
- apiVersion: apps/v1
  kind: Deployment
---
apiVersion: v1
kind: ConfigMapList
items:
- metadata: {name: b}
- metadata: {name: B}
""",
    )

    found = read(tmp_path)

    assert names(tmp_path) == ["a", "b"]
    assert {key.name: source for key, source in found.sources} == {"a": "a.yaml:4", "b": "a.yaml:13"}
    assert found.ignored == (("a.yaml:7", "apps/v1 Deployment"),)
    assert [each.source for each in found.rejections] == ["a.yaml:14"]


def test_json_is_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__json='{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},\n "dat": 1}\n{"kind": 1}',
    )

    found = read(tmp_path)

    assert names(tmp_path) == ["a"]
    assert [str(each) for each in found.rejections] == ["a.json:3: document 2: apiVersion: missing, it is required"]


def test_flaw_in_json_names_the_line_of_its_field(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__json=JSON_ROUTE,
        b__json='{"kind": "List", "apiVersion": "v1",\n"items": [\n' + JSON_ROUTE.strip() + ",\n" + JSON_ROUTE + "]}",
    )

    found = read(tmp_path)

    sources = [each.source for each in found.rejections if each.field == "spec.rules[0].matches[1].method"]
    assert sources == ["a.json:8", "b.json:10", "b.json:19"]


JSON_ROUTE = """{
  "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
  "metadata": {"name": "a", "annotations": {"a": "[{,:\\""}},
  "spec": {
    "rules": [{
      "matches": [
        {"path": {"value": "/a"}},
        {"path": {"value": "/b"}, "method": "SHOUT"}
      ]}]}}
"""


def test_nulls_are_fields_that_are_not_there(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__yaml="apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n"
        "metadata: {name: a, creationTimestamp: null, labels: }\nspec:\n  hostnames:\n  rules: null\nstatus:\n",
    )

    [found] = read(tmp_path).of(HTTPRoute)

    assert found.spec.hostnames == ()
    assert found.spec.rules[0].matches[0].path.value == "/"


def test_file_that_is_not_utf8_loses_only_one_document(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(config_map("a").encode() + config_map("b", c="ÿ").encode("latin-1"))

    assert names(tmp_path) == ["a"]
    [rejection] = read(tmp_path).rejections
    assert str(rejection) == "a.yaml:14: ConfigMap default/b: invalid UTF-8: byte 0xff"


def test_changed_document_alone_is_parsed_again(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=config_map("a") + config_map("b") + config_map("c"))
    reader = Reader(tmp_path)
    before = {each.metadata.name: each for each in reader.read().of(ConfigMap)}

    write(tmp_path, a__yaml="# text\n\n" + config_map("a") + config_map("b", d="e") + config_map("c"))
    found = reader.read()

    after = {each.metadata.name: each for each in found.of(ConfigMap)}
    assert [after[name] is before[name] for name in "abc"] == [True, False, True]
    assert {key.name: source for key, source in found.sources} == {"a": "a.yaml:4", "b": "a.yaml:11", "c": "a.yaml:19"}


def test_number_of_a_broken_document_follows_its_place(tmp_path: Path) -> None:
    write(tmp_path, a__yaml="---\nhello\n")
    reader = Reader(tmp_path)
    reader.read()

    write(tmp_path, a__yaml=config_map("a") + "---\nhello\n")

    assert [each.subject for each in reader.read().rejections] == ["document 2"]


def test_reading_the_same_files_gives_the_same_snapshot(tmp_path: Path) -> None:
    write(tmp_path, a__yaml=config_map("a"))
    reader = Reader(tmp_path)
    before = reader.read()

    (tmp_path / "a.yaml").write_text(config_map("a"))

    assert reader.read() is before
    assert reader.read(unless_same=True) is before


def test_secret_is_decoded_and_hidden(tmp_path: Path) -> None:
    write(
        tmp_path,
        a__yaml="apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ntype: kubernetes.io/tls\n"
        "data:\n  tls.crt: aHVu\n   dGVy\n  tls.key: aHVudGVy\nstringData: {tls.key: hunter2}\n",
    )

    found = read(tmp_path)

    [secret] = found.of(Secret)
    assert secret.data == {"tls.crt": b"hunter", "tls.key": b"hunter2"}
    assert "hunter" not in repr(found)
    assert "aHVu" not in repr(found)


def test_rejections_are_in_the_order_of_the_lines(tmp_path: Path) -> None:
    write(tmp_path, a__yaml="---\nhello\n" * 11)

    assert [each.source for each in read(tmp_path).rejections] == [f"a.yaml:{line}" for line in range(2, 24, 2)]
