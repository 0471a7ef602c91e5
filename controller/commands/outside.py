"""Refuses to write where resources are read."""

from pathlib import Path

from controller.errors import SettingInvalid


def outside(path: Path, directory: Path, *, option: str) -> Path:
    """The path, which an option names, if what is written there is not read as one of the resources.

    Hidden files and directories are not read. Raises SettingInvalid.
    """
    if not directory.is_dir() or not path.resolve().is_relative_to(directory.resolve()):
        return path
    below = path.resolve().relative_to(directory.resolve())
    if any(part.startswith(".") for part in below.parts):
        return path
    raise SettingInvalid(f"{option} {path}: lies in {directory}, whose files are read as resources")
