"""What a page's form sends."""

from __future__ import annotations

from urllib.parse import parse_qs

from starlette.requests import Request

from runyard.api.bodies import read_body
from runyard.model.errors import Invalid

FORM_BYTES_MAX = 64 << 10


async def form_fields(request: Request) -> dict[str, str]:
    """The fields, the last value of each. Raises TooLarge, Invalid."""
    body = await read_body(request, bytes_max=FORM_BYTES_MAX)
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
    except ValueError:
        raise Invalid("the form is no text", field="body", cure="send it as the page does") from None
