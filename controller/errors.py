"""What can go wrong outside of this program, one class per thing a caller would do about it.

    InfergateError
      SettingInvalid       an option or an environment variable has a value that cannot be used
      InputUnreadable      the directory or file that holds the resources, or a trace, cannot be read
      NginxError
        NginxMissing       no nginx binary, or one that lacks what the rendered files need
        NginxRefused       nginx -t refused a configuration; carries nginx's own line
        NginxNotRunning    nginx did not start, or did not answer for a version in time
      PickerNotRunning     the endpoint picker did not become ready in time
      StateUnusable        the state directory cannot be written or is used by another process
      AddressUnusable      an address cannot be listened on
      ControlPlaneFailed   the control plane does not answer an instance, or refuses it

A mistake in a resource is never an exception: it is a Rejection or a Condition.
"""

from dataclasses import dataclass


class InfergateError(Exception):
    """Base of everything here; its text is fit to show to a user."""


class SettingInvalid(InfergateError):
    """An option or an environment variable has a value that cannot be used."""


class InputUnreadable(InfergateError):
    """The directory or file that holds the resources, or a trace of the picker, cannot be read."""


class NginxError(InfergateError):
    """Something about the nginx binary or process."""


class NginxMissing(NginxError):
    """There is no nginx binary, or it lacks a module that the rendered files need."""


@dataclass
class NginxRefused(NginxError):
    """`nginx -t` refused a configuration."""

    file: str | None
    """Path of the refused file relative to the release, None when nginx named none."""
    line: int | None
    """1-based line in `file`."""
    message: str
    """nginx's own words, without level and position."""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.file else ""
        return f"nginx refused the configuration: {where}{self.message}"


class NginxNotRunning(NginxError):
    """nginx did not start, or did not answer for a version in time."""


class PickerNotRunning(InfergateError):
    """The endpoint picker did not become ready in time."""


class StateUnusable(InfergateError):
    """The state directory cannot be written, or another process uses it."""


class AddressUnusable(InfergateError):
    """An address cannot be listened on."""


class ControlPlaneFailed(InfergateError):
    """The control plane does not answer an instance of a data plane, or refuses it."""
