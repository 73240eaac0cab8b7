"""The numbered migrations as package data: what there is, in order, with checksums. Applying them is the adapter's.

A file is `NNNN_subject.sql`, one folder per dialect. An applied one is never edited: its checksum is stored in the
database and compared at every start. A line `-- lives beside: NNNN` says which releases go on beside it: all that know
migrations up to that number or further. The database keeps that number too, because an older release cannot read a
file that it does not have. Without the line none does: whoever writes a migration has to have thought of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

from runyard.model.errors import LedgerUnavailable

_LIVES_BESIDE = re.compile(r"^-- lives beside: (\d{4})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()

    @property
    def beside(self) -> int:
        """The least number that a release must know its migrations up to, to work on a database that has this one."""
        stated = _LIVES_BESIDE.search(self.sql)
        return self.number if stated is None else int(stated[1])


class Applied(NamedTuple):
    """A migration as the database remembers it. `beside` is None where a release before that column applied it."""

    number: int
    name: str
    checksum: str
    beside: int | None


def list_migrations(dialect: str) -> tuple[Migration, ...]:
    """Those that this release knows, in order of number."""
    folder = files(__name__).joinpath(dialect)
    found = [item for item in folder.iterdir() if item.name.endswith(".sql")]
    migrations = [
        Migration(int(item.name.partition("_")[0]), item.name, item.read_text(encoding="utf-8"))
        for item in found
    ]
    return tuple(sorted(migrations, key=lambda migration: migration.number))


def newest(known: tuple[Migration, ...]) -> int:
    """Up to where a release knows the schema."""
    return max((migration.number for migration in known), default=0)


def pending(
    known: tuple[Migration, ...], applied: Mapping[int, Applied], *, where: str
) -> tuple[Migration, ...]:
    """What is still to be applied. A database that a newer release has taken further is good enough while all that it
    added lives beside this one: during a rolling upgrade the older release restarts too. Raises LedgerUnavailable
    where the database is not one that these migrations made."""
    by_number = {migration.number: migration for migration in known}
    for number, one in sorted(applied.items()):
        migration = by_number.get(number)
        if migration is None:
            _check_newer(one, known, where=where)
        elif migration.checksum != one.checksum:
            raise LedgerUnavailable(
                f"ledger {where}: migration {one.name} was applied with another content than this release has",
                cure="install the release that made this ledger; applied migrations must not be edited",
            )
    return tuple(migration for migration in known if migration.number not in applied)


def _check_newer(one: Applied, known: tuple[Migration, ...], *, where: str) -> None:
    upto = newest(known)
    if one.number < upto or one.beside is None or one.beside > upto:
        raise LedgerUnavailable(
            f"ledger {where}: it was written by a newer Runyard (it holds migration {one.name}, beside which this "
            f"release cannot work: it knows up to {upto})",
            cure="start the newer release again, or restore a backup made before the upgrade",
        )
