import pytest

from controller.picker.model_servers import MetricsReader, Reading
from controller.pools import Engine

VLLM = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:num_requests_waiting_by_reason{engine="0",reason="x"} 9.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_gpu_blocks="27000",engine="0"} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""} 1.0
vllm:lora_requests_info{max_lora="4",running_lora_adapters="b, a",waiting_lora_adapters="c"} 1.7e+09
"""


def test_reading_of_vllm() -> None:
    assert MetricsReader().read(VLLM, None) == Reading(
        engine=Engine.VLLM,
        running=3,
        waiting=1,
        kv_use=0.25,
        block_size=16,
        blocks=27000,
        running_adapters=("a", "b"),
        waiting_adapters=("c",),
        max_adapters=4,
    )


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (
            b"vllm:num_requests_running 2\nvllm:num_requests_waiting 0\nvllm:gpu_cache_usage_perc 0.5\n",
            Reading(Engine.VLLM, running=2, kv_use=0.5),
        ),
        (
            b'sglang:num_running_reqs{dp_rank="0"} 4\nsglang:num_queue_reqs{dp_rank="0"} 2\nsglang:token_usage 0.1\n'
            b'sglang:cache_config_info{page_size="1",num_pages="900"} 1\n',
            Reading(Engine.SGLANG, running=4, waiting=2, kv_use=0.1, block_size=1, blocks=900),
        ),
        (
            b"llamacpp:requests_processing 1\nllamacpp:requests_deferred 2\nllamacpp:kv_cache_usage_ratio 0.75",
            Reading(Engine.LLAMA_CPP, running=1, waiting=2, kv_use=0.75),
        ),
        (
            b"llamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n",
            Reading(Engine.LLAMA_CPP, running=1),
        ),
        (b"vllm:num_requests_running 1\n", Reading(Engine.VLLM, running=1, is_whole=False)),
        (b"vllm:num_requests_running NaN\nvllm:num_requests_waiting 1 1700000000000\n", None),
    ],
)
def test_engine_is_found_by_its_names(page: bytes, expected: Reading | None) -> None:
    assert MetricsReader().read(page, None) == (expected or Reading(Engine.VLLM, waiting=1, is_whole=False))


def test_all_engine_series_of_a_data_parallel_pod_count() -> None:
    page = "".join(
        f'vllm:num_requests_running{{engine="{n}"}} {n}\nvllm:num_requests_waiting{{engine="{n}"}} 2\n'
        f'vllm:kv_cache_usage_perc{{engine="{n}"}} 0.{n}\n'
        for n in (1, 3)
    )
    reading = MetricsReader().read(page.encode(), None)
    assert reading is not None
    assert (reading.running, reading.waiting) == (4, 4)
    assert reading.kv_use == pytest.approx(0.2)


def test_workers_that_repeat_one_scheduler_count_once() -> None:
    page = "".join(f'sglang:num_running_reqs{{dp_rank="0",tp_rank="{n}"}} 5\n' for n in range(4))
    reading = MetricsReader().read(page.encode(), None)
    assert reading is not None
    assert reading.running == 5


@pytest.mark.parametrize(
    ("page", "engine"),
    [(VLLM, Engine.SGLANG), (b"", None), (b"process_open_fds 9\n", None), (b"vllm:num_preemptions_total 1\n", None)],
)
def test_page_without_the_needed_names_is_no_reading(page: bytes, engine: Engine | None) -> None:
    assert MetricsReader().read(page, engine) is None


@pytest.mark.parametrize(
    "line", [b"vllm:num_requests_running{", b"vllm:num_requests_running x", b"vllm:num_requests_running "]
)
def test_malformed_line_is_an_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        MetricsReader().read(line, None)


@pytest.mark.parametrize(
    "line",
    [
        b'vllm:prompt_tokens_total{model_name="m"} 5 # {trace_id="x"} 1',
        b'vllm:prompt_tokens_total 5 1700000000.5 # {trace_id="x",span="}"} 1 1700000000.5',
        b'vllm:prompt_tokens_total{model_name="a # {b}"} 5',
        b'vllm:prompt_tokens_total{model_name="a # {b}"} 5 # {} 1',
        b'vllm:prompt_tokens_total{model_name="\xe9"} 5 -17\r',
    ],
)
def test_exemplars_and_times_are_passed_over(line: bytes) -> None:
    reading = MetricsReader().read(b"vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n" + line, None)
    assert reading is not None
    assert reading.prompt_tokens == 5


@pytest.mark.parametrize("value", [b"1e308", b"+Inf", b"-Inf"])
def test_sums_do_not_overflow(value: bytes) -> None:
    names = (b"num_requests_running", b"num_requests_waiting", b"kv_cache_usage_perc", b"prompt_tokens_total")
    lines = [b'vllm:%b{engine="%d"} %b' % (name, engine, value) for name in names for engine in range(3)]
    assert MetricsReader().read(b"\n".join(lines) + b'\nvllm:prompt_tokens_total{engine="4"} +Inf\n', None) is not None


@pytest.mark.parametrize(
    ("value", "running", "kv_use"), [(b"-1", 0, 0.0), (b"+Inf", 10**9, 1.0), (b"1e300", 10**9, 1.0)]
)
def test_gauges_keep_their_range(value: bytes, running: int, kv_use: float) -> None:
    page = b"vllm:num_requests_running %b\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc %b\n" % (value, value)
    reading = MetricsReader().read(page, None)
    assert reading is not None
    assert (reading.running, reading.kv_use) == (running, kv_use)


def test_what_changes_is_read_and_what_stays_is_not_read_again() -> None:
    reader = MetricsReader()
    first = reader.read(VLLM, None)
    assert reader.read(b"# another page of the same server\n" + VLLM, None) is first
    busier = reader.read(VLLM.replace(b"} 3.0", b"} 4.0"), None)
    assert (first and first.running, busier and busier.running) == (3, 4)
    assert reader.read(VLLM, None) == first
    with pytest.raises(ValueError, match="malformed sample"):
        reader.read(b"vllm:num_requests_running x y z\n", None)
    assert reader.read(VLLM, None) == first
    assert reader.read(VLLM.replace(b"vllm:", b"sglang:"), None) != first
    assert reader.read(b"", None) is None
