"""The readers of forms in njs and in the picker agree, on broken ones too."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.picker.forms import model_in_form
from tests.njs.conftest import Body, Scan

pytestmark = pytest.mark.nginx

_PIECES = (
    b"--b",
    b"--b",
    b"--b--",
    b"\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b'\r\nContent-Disposition: form-data; name="model"\r\n\r\nllama',
    b"\r\ncontent-disposition:form-data;NAME=model\r\n\r\nqwen",
    b'\r\nContent-Disposition: form-data; name="model"; filename="f"\r\n\r\nx',
    b'\r\nContent-Type: text/plain\r\nContent-Disposition: form-data; name="models"\r\n\r\nx',
    b"\xff",
    b"-",
    b"x" * 50,
)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(seed=st.integers(0, 2**64))
def test_readers_of_forms_agree(scan: Scan, seed: int) -> None:
    choice = random.Random(seed)
    bodies = [b"".join(choice.choices(_PIECES, k=choice.randrange(1, 14))) for _ in range(500)]
    bodies += [b"--b" + body + b"\r\n--b--" for body in bodies]
    asked: list[Body] = [(body, choice.choice((1, 7, 64, 10**6)), "b") for body in bodies]
    for body, (model, *_) in zip(bodies, scan(asked), strict=True):
        assert model_in_form(body, b"b") == (model or ""), body
