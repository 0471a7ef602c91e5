"""`infergate render`: the files of each Gateway as they would be applied."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from controller.agent import nginx
from controller.bundle import Bundle
from controller.commands.outside import outside
from controller.dataplane.trial import TrialDataPlane
from controller.errors import StateUnusable
from controller.plugins.installed import installed
from controller.pools import POOLS_FILE, encode_pools
from controller.provider.file import read
from controller.render.files import RenderSettings, render
from controller.resources.gateway_api import CONTROLLER_NAME
from controller.settings import settings, system_authorities
from controller.topology.build import build
from controller.translate.build import translate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="directory (or file) with the resources")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="directory for the files")
    parser.add_argument("--no-test", action="store_true", help="do not ask nginx whether it takes the files")


def run(arguments: argparse.Namespace) -> int:
    """0 when nginx takes every Gateway's files, 1 when it refuses some.

    Raises InputUnreadable, NginxMissing, StateUnusable when the files cannot be written, and SettingInvalid when they
    would be read as resources.
    """
    output = outside(arguments.output, arguments.directory, option="-o")
    bundles = tuple(_bundles(arguments.directory))
    for bundle in bundles:
        directory = output / bundle.gateway.replace("/", "_")
        _write(bundle, directory)
        sys.stdout.write(f"{directory}: version {bundle.version}\n")
    if arguments.no_test:
        return 0
    return asyncio.run(_tested(bundles, nginx.find(settings().nginx, environment=os.environ)))


def _bundles(directory: Path) -> Iterator[Bundle]:
    topology = build(
        read(directory),
        controller_name=CONTROLLER_NAME,
        catalogue=installed(),
        system_authorities=system_authorities(),
    )
    for gateway in topology.gateways:
        yield render(translate(topology, name=gateway.key.path, gateways={gateway.key}), RenderSettings())


def _write(bundle: Bundle, directory: Path) -> None:
    try:
        for item in bundle.files:
            path = directory / item.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600 if item.secret else 0o644)
            path.write_bytes(item.content)
        (directory / POOLS_FILE).write_bytes(encode_pools(bundle.pools))
    except OSError as problem:
        raise StateUnusable(f"{directory} cannot be written: {problem}") from problem


async def _tested(bundles: tuple[Bundle, ...], binary: nginx.Nginx) -> int:
    status = 0
    async with TrialDataPlane(binary) as data_plane:
        for bundle in bundles:
            report = await data_plane.apply(bundle)
            if report.refusal is not None:
                sys.stderr.write(f"{bundle.gateway}: {report.refusal}\n")
                status = 1
    return status
