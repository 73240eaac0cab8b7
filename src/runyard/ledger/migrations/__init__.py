"""The numbered migrations as package data: what there is, in order, with checksums. Applying them is the adapter's.

A file is `NNNN_subject.sql`, one folder per dialect. An applied one is never edited: its checksum is stored in the
database and compared at every start.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from runyard.model.errors import LedgerUnavailable


@dataclass(frozen=True, slots=True)
class Migration:
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def list_migrations(dialect: str) -> tuple[Migration, ...]:
    """Those that this release knows, in order of number."""
    folder = files(__name__).joinpath(dialect)
    found = [item for item in folder.iterdir() if item.name.endswith(".sql")]
    migrations = [
        Migration(int(item.name.partition("_")[0]), item.name, item.read_text(encoding="utf-8"))
        for item in found
    ]
    return tuple(sorted(migrations, key=lambda migration: migration.number))


def pending(
    known: tuple[Migration, ...], applied: dict[int, tuple[str, str]], *, where: str
) -> tuple[Migration, ...]:
    """What is still to be applied, given what was (number -> name, checksum). Raises LedgerUnavailable where the
    database is not one that these migrations made."""
    by_number = {migration.number: migration for migration in known}
    for number, (name, checksum) in sorted(applied.items()):
        migration = by_number.get(number)
        if migration is None:
            newest = max(by_number, default=0)
            raise LedgerUnavailable(
                f"ledger {where}: it was written by a newer Runyard (it holds migration {name}, "
                f"this release knows up to {newest})",
                cure="start the newer release again, or restore a backup made before the upgrade",
            )
        if migration.checksum != checksum:
            raise LedgerUnavailable(
                f"ledger {where}: migration {name} was applied with another content than this release has",
                cure="install the release that made this ledger; applied migrations must not be edited",
            )
    return tuple(migration for migration in known if migration.number not in applied)
