"""A model as its server lists it."""

from typing import Final

import msgspec

LONGEST_NAME: Final = 256
"""Characters."""


class ServedModel(msgspec.Struct, frozen=True):
    """One entry of `/v1/models`, with what tells clients something; paths of the server's disk do not."""

    id: str
    object: str = "model"
    created: int | float = 0
    """Unix time in seconds. vLLM gives the time of the question."""
    owned_by: str | None = None
    parent: str | None = None
    """Of a LoRA adapter: its base model."""
    max_model_len: int | None = None
    """Tokens."""

    @property
    def is_adapter(self) -> bool:
        """Whether it is a LoRA adapter."""
        return bool(self.parent) and self.parent != self.id
