"""What a simulated pod is set to."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_Share = Annotated[float, Field(ge=0, lt=1)]
_Seconds = Annotated[float, Field(ge=0)]


class PodSettings(BaseModel):
    """One pod. Times are seconds at `speed` 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$")]
    """Unique in a process; sent as `x-simulated-pod`."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """0 takes any free port."""
    model: Annotated[str, Field(min_length=1)]
    adapters: tuple[str, ...] = ()
    """LoRA adapters, accepted as `model` of a request."""

    seed: Annotated[int, Field(ge=0, description="seed of the generated text and of the noise in times")] = 0
    speed: Annotated[float, Field(gt=0, description="divides every time; 2 is a pod twice as fast")] = 1.0
    noise: Annotated[_Share, Field(description="a step takes up to this share more or less than modelled")] = 0.02

    step_time: Annotated[_Seconds, Field(description="seconds of every step")] = 0.012
    sequence_time: Annotated[_Seconds, Field(description="seconds a step takes longer per decoding sequence")] = 0.0004
    token_time: Annotated[_Seconds, Field(description="seconds a step takes longer per prompt token in it")] = 0.00025
    step_tokens: Annotated[int, Field(ge=1, description="most tokens in one step; longer prompts are chunked")] = 2048
    max_sequences: Annotated[int, Field(ge=1, description="most sequences that run at once")] = 16

    blocks: Annotated[int, Field(ge=1, description="KV blocks")] = 3000
    block_size: Annotated[int, Field(ge=1, description="tokens of a KV block")] = 16

    max_adapters: Annotated[int, Field(ge=1, description="adapters loaded at once")] = 4
    adapter_time: Annotated[_Seconds, Field(description="seconds a step takes longer per adapter loaded")] = 0.3

    max_context: Annotated[int, Field(ge=2, description="most tokens of prompt and answer together")] = 32768
    answer_tokens: Annotated[int, Field(ge=1, description="tokens of an answer whose request sets no limit")] = 60
    longest_answer: Annotated[
        int, Field(ge=1, description="tokens after which an answer stops by itself, unless `ignore_eos` is set")
    ] = 2048

    headers_wait: Annotated[
        bool, Field(description="send the headers of a stream with its first token; vLLM sends them on arrival")
    ] = False
    keep_alive: Annotated[int, Field(ge=1, description="seconds after which an idle connection is closed")] = 5

    @model_validator(mode="after")
    def _longest_sequence_fits(self) -> Self:
        if self.max_context > self.blocks * self.block_size:
            # vLLM refuses to start for the same reason: the sequence could never run to its end.
            raise ValueError(
                f"max_context of {self.max_context} tokens does not fit into {self.blocks} blocks"
                f" of {self.block_size} tokens"
            )
        return self
