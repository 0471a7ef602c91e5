"""A llama.cpp server on one port until it is ended: `python -m controller.demo.llama_cpp MODEL NAME PORT THREADS`.

A process of its own, because the server's threads take the interpreter along when they fail, and end only with it.
"""

import importlib
import signal
import sys
from typing import Any, Final

_SLOTS: Final = 4
"""Requests that run at once; more wait."""
_CONTEXT: Final = 2048
"""Tokens of a request and its answer. Each takes 23 KB, so that all slots are 190 MB beside the model's 100."""
_ERRORS: Final = 1
"""Verbosity: a healthy server says nothing."""


def main(model: str, name: str, port: int, threads: int) -> None:
    """Serves; SIGTERM ends the process."""
    llama: Any = importlib.import_module("xllamacpp")  # Any: an extra without types, imported only here
    parameters = llama.CommonParams()
    parameters.model.path = model
    parameters.model_alias = {name}
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    parameters.n_parallel = _SLOTS
    parameters.n_ctx = _SLOTS * _CONTEXT
    parameters.cpuparams.n_threads = threads
    parameters.cache_ram_mib = 0  # prompts of freed slots, up to 8 GB of them by default
    parameters.endpoint_metrics = True
    parameters.ui = False
    parameters.verbosity = _ERRORS
    server = llama.Server(parameters)
    signal.pause()
    del server


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
