"""Simulated model servers: from outside each pod is a vLLM server, inside no model runs.

    command      `infergate simulate`
    pods         listens on one port per pod, starts and stops them
    application  HTTP and WebSocket paths of a pod
    completions  a request that runs the model, from its body to its answer
    running      its sequences, from the engine to the client
    transcripts  what is asked and answered of audio
    responses    the same of OpenAI's Responses API
    pod          one pod: its engine in real time, its fault, the requests that arrived
    engine       the scheduler, with a virtual clock: steps, KV blocks, adapters
    series       what /metrics says

Only `pods` and `command` are meant for callers, with `settings.PodSettings` and `faults.Fault`.
"""
