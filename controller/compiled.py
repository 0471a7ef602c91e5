"""Modules of the hot paths in a compiled form, where there is one that was made of the very source.

The sources are the truth: a binary lies in `_compiled` under a name with the digest of its source, and is imported in
its place. One of another source is never found, and where there is none Python imports the source.
`python -m tools.compile` makes them.
"""

import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

VARIABLE: Final = "INFERGATE_COMPILED"
"""In the environment; 0 imports the sources."""
DIRECTORY: Final = Path(__file__).parent / "_compiled"
DIRECTIVES: Final = {"language_level": "3", "annotation_typing": "False", "binding": "True"}
"""Of Cython. Annotations are no types of C, and functions can be inspected: a source means what it means to Python."""
MODULES: Final = (
    "controller.picker.answers",
    "controller.picker.choosing",
    "controller.picker.chunks",
    "controller.picker.completions",
    "controller.picker.completions_file",
    "controller.picker.decisions",
    "controller.picker.director",
    "controller.picker.due",
    "controller.picker.durations",
    "controller.picker.endpoints",
    "controller.picker.explain",
    "controller.picker.flow_control.claims",
    "controller.picker.flow_control.controller",
    "controller.picker.flow_control.gate",
    "controller.picker.flow_control.loads",
    "controller.picker.flow_control.queue",
    "controller.picker.flow_control.saturation",
    "controller.picker.flow_control.tickets",
    "controller.picker.health",
    "controller.picker.inflight",
    "controller.picker.learning",
    "controller.picker.listing",
    "controller.picker.memory",
    "controller.picker.model_servers",
    "controller.picker.pages",
    "controller.picker.picks",
    "controller.picker.prefix",
    "controller.picker.prompt",
    "controller.picker.rates",
    "controller.picker.request_counts",
    "controller.picker.requests",
    "controller.picker.scheduling.filters.healthy",
    "controller.picker.scheduling.matching",
    "controller.picker.scheduling.pickers.by_score",
    "controller.picker.scheduling.profile",
    "controller.picker.scheduling.scorers.expected_time",
    "controller.picker.scrape",
    "controller.picker.transport",
    "controller.picker.usage",
)
"""What a request runs through in the picker. The relay and the exchanges of ext_proc stay out: compiled they took as
long as before. In the relay lookups of attributes, which the interpreter remembers, took what the interpreter had."""

_ROOT: Final = Path(__file__).parent.parent


def source_of(module: str) -> Path:
    """The file of a module of the table."""
    return _ROOT.joinpath(*module.split(".")).with_suffix(".py")


def binary_of(module: str, directory: Path = DIRECTORY) -> Path:
    """Where the compiled form of a module belongs as its source is at the moment. Raises OSError without a source."""
    made_of = repr(sorted(DIRECTIVES.items())).encode() + source_of(module).read_bytes()
    return directory / f"{module}-{hashlib.sha256(made_of).hexdigest()[:16]}{EXTENSION_SUFFIXES[0]}"


class Finder(MetaPathFinder):
    """Finds compiled modules before Python looks for their sources."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory
        self.broken: dict[str, str] = {}
        """Modules whose compiled form could not be loaded, and why."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `MetaPathFinder`."""
        if fullname not in MODULES:
            return None
        binary = binary_of(fullname, self._directory)
        if not binary.is_file():
            return None
        loader = _Loader(fullname, binary, broken=self.broken)
        return spec_from_file_location(fullname, loader.path, loader=loader)


class _Loader(SourceFileLoader):
    """Loads the binary, and the source where that fails, as with one for another C library.

    All but what is run is the source's, so that tracebacks and `inspect` show what was written.
    """

    def __init__(self, name: str, binary: Path, *, broken: dict[str, str]) -> None:
        super().__init__(name, str(source_of(name)))
        self.binary: ExtensionFileLoader | None = ExtensionFileLoader(name, str(binary))
        """None after it could not be loaded."""
        self._broken = broken

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """See `Loader`."""
        assert self.binary is not None  # there was no try yet
        try:
            module = self.binary.create_module(ModuleSpec(spec.name, self, origin=self.binary.path))
        except ImportError as problem:
            self._broken[spec.name] = str(problem)
            self.binary = None
            return None
        module.__file__ = spec.origin
        return module

    def exec_module(self, module: ModuleType) -> None:
        """See `Loader`."""
        if self.binary is None:
            super().exec_module(module)
        else:
            self.binary.exec_module(module)


def install(environment: Mapping[str, str], directory: Path = DIRECTORY) -> None:
    """Import compiled modules from now on, unless the environment says not to."""
    if environment.get(VARIABLE) != "0" and not any(isinstance(one, Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, Finder(directory))


def tell(log: logging.Logger, message: str) -> None:
    """Say in the log how much of what this process imported is compiled, and why compiled modules were not loaded."""
    log.info(message, extra={"compiled": count()})
    broken = {name: why for one in sys.meta_path if isinstance(one, Finder) for name, why in one.broken.items()}
    if broken:
        reason = next(iter(broken.values()))
        log.warning("compiled modules cannot be loaded", extra={"modules": len(broken), "reason": reason})


def count() -> str:
    """How many of the table's modules that this process imported are compiled, as `7/9`."""
    found = [sys.modules[name] for name in MODULES if name in sys.modules]
    return f"{sum(is_compiled(module) for module in found)}/{len(found)}"


def available(environment: Mapping[str, str]) -> str:
    """How many of the table's modules a process with this environment would find compiled, as `7/9`."""
    found = 0 if environment.get(VARIABLE) == "0" else sum(binary_of(name).is_file() for name in MODULES)
    return f"{found}/{len(MODULES)}"


def is_compiled(module: ModuleType) -> bool:
    """Whether a module runs in its compiled form."""
    return isinstance(module.__loader__, _Loader) and module.__loader__.binary is not None
