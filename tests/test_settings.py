from pathlib import Path

import pytest

from controller.errors import SettingInvalid
from controller.settings import (
    Settings,
    fitting_large_requests,
    settings,
    system_authorities,
    usable_files,
    usable_processors,
)


def test_settings_come_from_the_environment() -> None:
    found = settings({"INFERGATE_WORKERS": "3", "INFERGATE_ACCESS_LOG": "access.log", "OTHER": "x"})
    assert (found.workers, found.access_log) == (3, "access.log")


def test_variables_of_a_service_named_infergate_are_no_settings() -> None:
    assert settings({"INFERGATE_PORT": "tcp://10.0.0.1:80", "INFERGATE_SERVICE_HOST": "10.0.0.1"}) == settings({})


def test_no_setting_has_a_name_that_a_service_could_make() -> None:
    made = ("_PORT", "_HOST", "_ADDR", "_PROTO", "_TCP", "_UDP")
    assert [name for name in Settings.model_fields if f"_{name.upper()}".endswith(made)] == []


@pytest.mark.parametrize(
    ("name", "value"), [("WORKERS", "many"), ("WORKERS", "-1"), ("MAX_BODY_SIZE", "12"), ("MAX_BODY_SIZE", "1m")]
)
def test_setting_that_cannot_be_used_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingInvalid, match=f"INFERGATE_{name}={value}: "):
        settings({f"INFERGATE_{name}": value})


@pytest.mark.parametrize(("quota", "most"), [("50000 100000", 1), ("100000 100000", 1), ("max 100000", 512)])
def test_workers_follow_the_control_group(tmp_path: Path, quota: str, most: int) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert 1 <= usable_processors(file) <= most


def test_machine_without_control_groups_uses_the_affinity_mask(tmp_path: Path) -> None:
    assert usable_processors(tmp_path / "missing") >= 1


def test_open_files_stay_below_the_hard_limit() -> None:
    assert 0 < usable_files(10**9) <= 10**9


@pytest.mark.parametrize(("limit", "most"), [("104857600\n", 100), ("1024\n", 64), ("max\n", 10**6)])
def test_large_requests_fit_into_a_quarter_of_the_memory(tmp_path: Path, limit: str, most: int) -> None:
    file = tmp_path / "memory.max"
    file.write_text(limit)
    assert 64 <= fitting_large_requests(file) <= most


def test_authorities_are_in_the_first_file_that_has_some(tmp_path: Path) -> None:
    empty, good = tmp_path / "empty", tmp_path / "good"
    empty.write_text("nothing")
    good.write_text("-----BEGIN CERTIFICATE-----")
    files = (tmp_path / "missing", empty, good)
    assert system_authorities({}, files) == good.read_bytes()
    assert system_authorities({"SSL_CERT_FILE": str(empty)}, files) is None
