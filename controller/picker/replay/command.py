"""Replays a trace from a file and tells what was different."""

from pathlib import Path

from controller.errors import InputUnreadable
from controller.picker.replay.events import events_in
from controller.picker.replay.player import Player
from controller.picker.replay.policy import policy_in
from controller.picker.replay.tally import table
from controller.plugins.installed import installed


def replay(trace: Path, *, policy: Path | None) -> str:
    """A table of what was recorded and what a policy would have done; None replays the recorded policies.

    Raises InputUnreadable when the trace cannot be read, SettingInvalid when the policy cannot be used.
    """
    catalogue = installed()
    player = Player(catalogue, policy_in(policy, catalogue=catalogue) if policy is not None else None)
    try:
        with trace.open("rb") as lines:
            for event in events_in(lines):
                player.take(event)
    except OSError as error:
        raise InputUnreadable(f"{trace}: {error.strerror}") from error
    except InputUnreadable as error:
        raise InputUnreadable(f"{trace}: {error}") from error
    return table(player.tallies, length=player.length)
