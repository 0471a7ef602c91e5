"""What a gateway is told of a request that was picked for: where it goes, and what is changed of it."""

from collections.abc import Mapping
from typing import Final

from controller.extproc.encoding import encode_answer
from controller.extproc.messages import (
    ENDPOINT_KEY,
    ENDPOINT_NAMESPACE,
    EXPLANATION_KEY,
    MODEL_KEY,
    OWN_NAMESPACE,
    TARGET_KEY,
    USAGE_KEY,
    BodyAnswer,
    BodyMode,
    Changes,
    HeadersAnswer,
    Phase,
    SetHeader,
    TrailersAnswer,
)
from controller.headers import ENDPOINT_HEADER
from controller.picker.ext_proc.intake import Intake
from controller.picker.ext_proc.renaming import Naming, changes_of
from controller.picker.ext_proc.replies import BUFFERED, Replies, streamed
from controller.picker.ext_proc.verdicts import Picked

AT_ONCE: Final = (BodyMode.NONE, BodyMode.STREAMED)
"""Modes in which the headers have gone on before there is a body."""
REQUEST_TRAILERS_PASSED: Final = encode_answer(TrailersAnswer(Phase.REQUEST))


def picked_replies(
    picked: Picked,
    intake: Intake,
    *,
    naming: Naming | None,
    body: bytes,
    mode: BodyMode,
    has_trailers: bool,
    reads_usage: bool,
) -> Replies:
    """Messages that say so. `body` is what came of it; `reads_usage` whether its pool has tokens of answers read."""
    endpoints = picked.endpoints
    changes = Changes(set=(SetHeader(ENDPOINT_HEADER, endpoints.encode()),), remove=intake.removed)
    metadata: dict[str, Mapping[str, str | bool]] = {ENDPOINT_NAMESPACE: {ENDPOINT_KEY: endpoints}}
    if own := _told(picked, reads_usage=reads_usage):
        metadata[OWN_NAMESPACE] = own
    renamed = naming.body(body) if naming is not None and naming.is_changed else None
    if renamed is not None:
        body = renamed
        changes = changes_of(changes, intake, size=len(body), mode=mode)
    if mode in BUFFERED:
        if has_trailers:
            # There was no body: nothing is left that headers could be changed by.
            return (encode_answer(TrailersAnswer(Phase.REQUEST), metadata=metadata),)
        answer = BodyAnswer(Phase.REQUEST, renamed, changes=changes, clears_route=True)
        return (encode_answer(answer, metadata=metadata),)
    headers = encode_answer(HeadersAnswer(Phase.REQUEST, changes, clears_route=True), metadata=metadata)
    if mode in AT_ONCE:
        return (headers,)
    replies = [headers]
    if body or not has_trailers:
        replies += streamed(Phase.REQUEST, body, end_of_stream=not has_trailers)
    if has_trailers:
        replies.append(REQUEST_TRAILERS_PASSED)
    return tuple(replies)


def _told(picked: Picked, *, reads_usage: bool) -> dict[str, str | bool]:
    """What Infergate's own gateway is told of a request besides."""
    request = picked.request
    told: dict[str, str | bool] = {}
    if picked.why:
        told[EXPLANATION_KEY] = picked.why.decode()
    if request.model:
        told[MODEL_KEY] = request.model
    if request.target:
        told[TARGET_KEY] = request.target
    if reads_usage:
        told[USAGE_KEY] = request.reads_usage
    return told
