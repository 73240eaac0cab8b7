"""`runyard link`: to the pages without typing a token."""

from __future__ import annotations

import sys

from runyard.cli.connection import open_client
from runyard.cli.words import span


def link() -> None:
    """Print an address that opens the pages in a browser, once, with this token's rights."""
    with open_client() as client:
        made = client.tokens.link()
        print(f"{client.url}{made.path}")
    print(f"runyard: good for {span(made.expires_in)}, and once", file=sys.stderr)
