"""What stays live while an edit is broken."""

import errno
import os
from pathlib import Path

import pytest

from controller.provider import directory
from controller.provider.reader import Reader
from controller.resources.meta import Key

GOOD = """\
apiVersion: v1
kind: Service
metadata: {name: first}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: second}
spec: {ports: [{port: 80}]}
"""


def _services(reader: Reader) -> dict[str, str]:
    return {key.name: source for key, source in reader.read().sources}


@pytest.mark.parametrize("broken", ["port: eighty", "port: [", 'port: "', "port: 80, port: 81", "part: 80"])
def test_resource_of_a_broken_edit_stays_as_it_was(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(GOOD)
    reader = Reader(tmp_path)
    before = reader.read()
    head, _, tail = GOOD.rpartition("port: 80")
    file.write_text(head + broken + tail)
    after = reader.read()
    assert after.resources == before.resources
    assert after.rejections
    file.write_text(GOOD)
    assert reader.read().rejections == ()


@pytest.mark.parametrize("broken", ["{", "a\n", "port: 80\n", "\udcff", GOOD.replace("kind: ", "kind ")])
def test_file_whose_documents_do_not_tell_what_they_are_keeps_all_that_it_had(tmp_path: Path, broken: str) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(GOOD)
    reader = Reader(tmp_path)
    before = reader.read()
    file.write_text(broken, errors="surrogateescape")
    after = reader.read()
    assert after.resources == before.resources
    assert after.rejections


def test_broken_json_keeps_all_that_it_had(tmp_path: Path) -> None:
    service = '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}}'
    (tmp_path / "services.json").write_text(service)
    reader = Reader(tmp_path)
    reader.read()
    (tmp_path / "services.json").write_text(service.replace("}]", "},]"))
    assert set(_services(reader)) == {"a"}


def test_resource_without_a_namespace_stays_as_it_was(tmp_path: Path) -> None:
    good = "apiVersion: v1\nmetadata: {name: shop}\nkind: Namespace\n"
    (tmp_path / "shop.yaml").write_text(good)
    reader = Reader(tmp_path)
    reader.read()
    (tmp_path / "shop.yaml").write_text(good + "spec: [")
    after = reader.read()
    assert after.sources == ((Key("", "Namespace", "", "shop"), "shop.yaml:1"),)
    assert after.rejections


@pytest.mark.parametrize("kind", ["HTTPRout", "httproute", "HTTPRoutes"])
def test_resource_whose_kind_is_misspelt_stays_as_it_was(tmp_path: Path, kind: str) -> None:
    good = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: cart}\nspec: {}\n"
    (tmp_path / "cart.yaml").write_text(good)
    reader = Reader(tmp_path)
    before = reader.read()
    (tmp_path / "cart.yaml").write_text(good.replace("HTTPRoute", kind))
    assert reader.read().resources == before.resources


def test_kind_that_is_not_read_keeps_nothing_of_its_name(tmp_path: Path) -> None:
    group = "apiVersion: gateway.networking.k8s.io/v1\nmetadata: {name: cart}\n"
    other = f"---\n{group}kind: TrafficPolicy\n"
    (tmp_path / "cart.yaml").write_text(f"{group}kind: HTTPRoute\nspec: {{}}\n{other}")
    reader = Reader(tmp_path)
    assert set(_services(reader)) == {"cart"}
    (tmp_path / "cart.yaml").write_text(other)
    assert _services(reader) == {}


@pytest.mark.parametrize("name", ["services.yaml", "shop/services.yaml"])
def test_file_that_cannot_be_read_keeps_all_that_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(GOOD)
    reader = Reader(tmp_path)
    before = reader.read()
    monkeypatch.setattr(directory, "_LARGEST", 1)
    file.write_text(file.read_text() + "\n")
    after = reader.read()
    assert after.resources == before.resources
    assert [rejection.source for rejection in after.rejections] == [name]


def test_resource_deleted_from_a_good_file_is_gone(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    file.write_text(GOOD)
    reader = Reader(tmp_path)
    assert set(_services(reader)) == {"first", "second"}
    file.write_text(GOOD.partition("---")[0])
    assert set(_services(reader)) == {"first"}


def test_resource_that_moved_out_of_a_flawed_file_is_read_where_it_is(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(GOOD)
    reader = Reader(tmp_path)
    reader.read()
    one, _, two = GOOD.partition("---\n")
    first.write_text(one + "---\nkind: [")
    second.write_text(two)
    assert _services(reader)["second"] == "b.yaml:1"


def test_directory_that_was_never_good_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / "services.yaml").write_text(GOOD.replace("port: 80", "port: ["))
    assert _services(Reader(tmp_path)) == {}


def test_flaw_of_another_document_keeps_no_deleted_resource(tmp_path: Path) -> None:
    file = tmp_path / "services.yaml"
    unsupported = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: TCPRoute\nmetadata: {name: x}\nspec: {}\n"
    file.write_text(GOOD + unsupported)
    reader = Reader(tmp_path)
    assert set(_services(reader)) == {"first", "second"}
    file.write_text(GOOD.partition("---")[0] + unsupported)
    assert set(_services(reader)) == {"first"}


def test_items_of_lists_in_lists_are_read(tmp_path: Path) -> None:
    inner = "  - apiVersion: v1\n    kind: Service\n    metadata: {name: deep}\n    spec: {ports: [{port: 80}]}\n"
    text = f"apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: List\n  items:\n{inner}"
    (tmp_path / "list.yaml").write_text(text)
    assert set(_services(Reader(tmp_path))) == {"deep"}


@pytest.mark.parametrize("items", ["{}", "null", "1"])
def test_list_without_items_is_a_rejection(tmp_path: Path, items: str) -> None:
    (tmp_path / "list.yaml").write_text(f"apiVersion: v1\nkind: List\nitems: {items}\n")
    (rejection,) = Reader(tmp_path).read().rejections
    assert (rejection.subject, rejection.field) == ("List", "items")


def test_directory_that_cannot_be_read_keeps_all_that_it_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "services.yaml").write_text(GOOD)
    reader = Reader(tmp_path)
    before = reader.read()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("/a"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    after = reader.read()
    assert after.resources == before.resources
    assert [(rejection.source, rejection.message) for rejection in after.rejections] == [
        ("a", "cannot be read: permission denied")
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may follow every link")
def test_link_that_cannot_be_followed_keeps_all_that_it_led_to(tmp_path: Path) -> None:
    directory, elsewhere = tmp_path / "resources", tmp_path / "elsewhere"
    directory.mkdir()
    elsewhere.mkdir()
    (elsewhere / "services.yaml").write_text(GOOD)
    (directory / "linked").symlink_to(elsewhere)
    (directory / "services.yaml").symlink_to(elsewhere / "services.yaml")
    reader = Reader(directory)
    before = reader.read()
    elsewhere.chmod(0)
    try:
        after = reader.read()
    finally:
        elsewhere.chmod(0o700)
    assert after.resources == before.resources
    assert [rejection.source for rejection in after.rejections] == ["linked", "services.yaml"]
