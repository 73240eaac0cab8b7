"""Where the database is, in a form that may be shown: the password is in nothing but the URL itself (I11)."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from runyard.model.errors import ConfigError

SCHEMES = ("postgresql", "postgres")
CURE = (
    "write postgresql://user:password@host:5432/database, or postgresql:///database?host=/folder/of/the/socket; "
    "in the user's name and the password each of : / ? # [ ] @ % stands as %XX"
)


@dataclass(frozen=True, slots=True)
class Address:
    """`url` is secret; `where` is what messages say."""

    url: str = field(repr=False)
    where: str

    @classmethod
    def parse(cls, url: str) -> Address:
        """Raises ConfigError, which says nothing of the URL's text: a broken one may show its password anywhere."""
        try:
            parts = urlsplit(url)
            query = parse_qs(parts.query, strict_parsing=bool(parts.query))
            host, port, user = parts.hostname, parts.port, parts.username
        except ValueError:
            raise _broken("it cannot be parsed") from None
        if parts.scheme not in SCHEMES:
            raise _broken("it is none of PostgreSQL's")
        if parts.fragment or "@" in (parts.path + parts.query):
            raise _broken("it has a '#' or a second '@'")
        place = host or query.get("host", ["localhost"])[0]
        shown_user = f"{user}@" if user else ""
        shown_port = f":{port}" if port else ""
        return cls(url, f"postgresql://{shown_user}{place}{shown_port}{parts.path}")


def _broken(why: str) -> ConfigError:
    return ConfigError(
        f"[ledger] url: {why} (it is not shown, for it may hold a password)", field="ledger.url", cure=CURE
    )
