"""A restarted model server has an empty cache."""

import pytest

from controller.picker.model_servers import MetricsReader

from .conftest import Picker


def warm(picker: Picker, **told: object) -> None:
    picker.serve("a")
    picker.read("a", **told)
    picker.pick("1", prompt=b"x" * 5000)
    picker.complete("1", endpoint="a")
    assert len(picker.endpoint("a").prefixes) > 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"started_at": 100.0}, {"started_at": 200.0}),
        ({"prompt_tokens": 500.0}, {"prompt_tokens": 0.0}),
        ({"started_at": 100.0, "prompt_tokens": 500.0}, {"started_at": 200.0, "prompt_tokens": 900.0}),
    ],
)
def test_restart_clears_the_index(picker: Picker, before: dict[str, float], after: dict[str, float]) -> None:
    warm(picker, **before)
    picker.read("a", **after)
    assert (len(picker.endpoint("a").prefixes), picker.endpoint("a").restarts) == (0, 1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"started_at": 100.0, "prompt_tokens": 5.0}),
        ({"started_at": 100.0, "prompt_tokens": 5.0}, {}),
        ({"prompt_tokens": 5.0}, {"prompt_tokens": 5.0}),
        ({"started_at": 100.0, "prompt_tokens": 5.0}, {"started_at": 100.0, "prompt_tokens": 9.0}),
    ],
)
def test_server_that_goes_on_keeps_its_index(picker: Picker, before: dict[str, float], after: dict[str, float]) -> None:
    warm(picker, **before)
    picker.read("a", **after)
    assert len(picker.endpoint("a").prefixes) > 0


def test_restart_is_seen_across_scrapes_that_fail(picker: Picker) -> None:
    warm(picker, started_at=100.0)
    picker.endpoint("a").miss()
    picker.read("a", started_at=101.0)
    assert len(picker.endpoint("a").prefixes) == 0


def test_another_pod_starts_with_an_empty_index(picker: Picker) -> None:
    warm(picker)
    picker.serve("a", uid="2")
    assert len(picker.endpoint("a").prefixes) == 0


def test_start_and_counter_are_read() -> None:
    page = (
        b"process_start_time_seconds 1.7e9\nvllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"
        b'vllm:prompt_tokens_total{engine="0"} 10\nvllm:prompt_tokens_total{engine="1"} 5\n'
        b'vllm:cache_config_info{engine="0",block_size="16",num_gpu_blocks="100"} 1\n'
        b'vllm:cache_config_info{engine="1",block_size="16",num_gpu_blocks="100"} 1\n'
    )
    reading = MetricsReader().read(page, None)
    assert reading is not None
    assert (reading.started_at, reading.prompt_tokens, reading.blocks) == (1.7e9, 15, 200)
    zero = MetricsReader().read(page.replace(b"} 10", b"} 0").replace(b"} 5", b"} 0"), None)
    assert zero is not None
    assert zero.prompt_tokens == 0
