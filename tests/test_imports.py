"""Who may import whom. The direction is the architecture: a stage knows the ones before it, never the ones after."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "controller"

MAY_IMPORT: dict[str, set[str]] = {
    "alt_names": set(),
    "errors": set(),
    "backoff": set(),
    "compiled": set(),
    "logs": set(),
    "settings": {"errors"},
    "validation": set(),
    "plugins": {"headers", "validation"},
    "probes": {"errors"},
    "pools": {"plugins"},
    "bundle": {"pools"},
    "headers": set(),
    "completions": set(),
    "dialed": {"pools"},
    "kube": {"errors"},
    "resources": {"validation"},
    "ir": {"pools", "resources"},
    "topology": {"headers", "ir", "plugins", "pools", "remembered", "resources"},
    "translate": {"ir", "resources", "topology"},
    "render": {"bundle", "completions", "dialed", "headers", "ir", "pools", "remembered", "resources"},
    "status": {"remembered", "resources", "topology"},
    "garbage": set(),
    "serving": set(),
    "remembered": set(),
    "tokens": set(),
    "turns": set(),
    "wire": {"bundle", "errors", "pools"},
    "agent": {"backoff", "bundle", "errors", "pools", "wire"},
    "dataplane": {
        "agent", "bundle", "completions", "dialed", "errors", "ir", "pools", "resources", "serving", "topology",
        "wire",
    },
    "provider": {"backoff", "errors", "kube", "resources", "status"},
    "extproc": set(),
    "membership": {"errors", "kube", "plugins", "pools", "provider", "resources", "topology"},
    "picker": {
        "alt_names", "compiled", "completions", "errors", "extproc", "garbage", "headers", "membership",
        "plugins", "pools", "serving", "tokens", "turns",
    },
    "dialer": {"alt_names", "dialed", "errors", "pools"},
    "relay": {"alt_names", "dialed", "extproc", "garbage", "headers", "pools", "tokens", "turns"},
    "simulator": {"errors"},
    "demo": {"agent", "errors", "simulator"},
    "refused": {"bundle", "errors", "ir", "render", "resources", "topology"},
    "reconcile": {
        "bundle", "dataplane", "errors", "ir", "plugins", "pools", "provider", "refused", "render", "resources",
        "topology", "translate",
    },
    "control_plane": {
        "backoff", "bundle", "dataplane", "errors", "ir", "plugins", "provider", "reconcile", "refused",
        "render", "resources", "settings", "status", "topology",
    },
    "commands": {
        "agent", "bundle", "completions", "control_plane", "dataplane", "demo", "errors", "garbage", "ir",
        "kube", "logs", "plugins", "pools", "probes", "provider", "reconcile", "render", "resources",
        "settings", "status", "topology", "translate",
    },
    "__main__": {"commands", "compiled", "errors", "logs", "picker", "relay", "simulator"},
}  # fmt: skip

PURE = ("ir", "resources", "topology", "translate", "status")
INPUT_AND_OUTPUT = {
    "aiohttp",
    "asyncio",
    "http",
    "httpx",
    "kubernetes",
    "logging",
    "os",
    "socket",
    "subprocess",
    "watchfiles",
}

OWNERS = {
    "aiohttp": {"kube"},
    "cryptography": {"dataplane", "picker", "topology"},
    "envoy": {"extproc"},
    "fastapi": {"picker", "simulator"},
    "google": {"extproc"},
    "hpack": {"extproc"},
    "jinja2": {"render"},
    "kubernetes": {"kube"},
    "prometheus_client": {"agent", "control_plane", "picker", "probes", "relay", "simulator"},
    "uvicorn": {"dataplane", "picker", "serving", "simulator"},
    "watchfiles": {"provider", "picker"},
}


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        yield path.relative_to(ROOT).parts[0].removesuffix(".py"), path


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            if node.module == "controller":
                yield from (f"controller.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(("package", "path"), list(_modules()), ids=lambda item: str(item).rpartition("controller/")[2])
def test_module_imports_only_what_its_package_may(package: str, path: Path) -> None:
    found = {name.split(".")[1] for name in _imports(path) if name.startswith("controller.")}
    allowed = MAY_IMPORT.get(package, set()) | {package}
    assert package == "__init__" or found <= allowed


@pytest.mark.parametrize("package", sorted(MAY_IMPORT.keys() - {"__main__"}))
def test_package_imports_all_that_it_may(package: str) -> None:
    # Without the main module, which imports commands by name.
    names = {name for owner, path in _modules() if owner == package for name in _imports(path)}
    assert MAY_IMPORT[package] <= {name.split(".")[1] for name in names if name.startswith("controller.")}


def test_pure_stages_do_no_input_or_output() -> None:
    found = {
        (package, name)
        for package, path in _modules()
        if package in PURE
        for name in _imports(path)
        if name.split(".")[0] in INPUT_AND_OUTPUT
    }
    assert not found


@pytest.mark.parametrize("library", sorted(OWNERS))
def test_library_is_imported_by_its_owners_only(library: str) -> None:
    users = {package for package, path in _modules() for name in _imports(path) if name.split(".")[0] == library}
    assert users <= OWNERS[library]


def test_every_package_has_a_rule() -> None:
    assert {package for package, _ in _modules()} - {"__init__"} <= set(MAY_IMPORT)
