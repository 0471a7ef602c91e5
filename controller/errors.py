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
      ApiError
        ApiUnreachable     the API server did not answer, or not in time, or not in JSON
        ApiRefused         the API server said no; carries its code, reason and message
          ApiDenied        we are not who we say, or may not do this
          ApiMissing       there is no such object, or kind
          ApiConflict      the object is there already, or was changed by somebody else
          ApiExpired       a list or watch cannot go on from where it was
          ApiBusy          it cannot at the moment: 429, or a status of 500 and above

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


class ApiError(InfergateError):
    """Something about the Kubernetes API server."""


class ApiUnreachable(ApiError):
    """The API server did not answer, or not in time, or not in JSON."""


@dataclass(eq=False)
class ApiRefused(ApiError):
    """The API server said no."""

    code: int
    """Status code of HTTP."""
    reason: str
    """One word, such as NotFound."""
    message: str
    wait: float = 0.0
    """Seconds after which it asks to be called again; 0 when it does not say."""

    def __str__(self) -> str:
        return f"API server refused with {self.code} {self.reason}: {self.message}"


class ApiDenied(ApiRefused):
    """We are not who we say, or may not do this."""


class ApiMissing(ApiRefused):
    """There is no such object, or kind."""


class ApiConflict(ApiRefused):
    """The object is there already, or was changed by somebody else."""


class ApiExpired(ApiRefused):
    """A list or watch cannot go on from where it was."""


class ApiBusy(ApiRefused):
    """The API server cannot at the moment: it has too much to do, or something that it needs fails."""
