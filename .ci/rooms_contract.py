"""The import-linter contract behind `[tool.importlinter]` in pyproject.toml: the table of rooms.

import-linter's own contracts fail on a module that does not exist yet and say nothing about one that nobody
listed. This one reads the table as the design draws it, passes over rooms still to be built, and complains
about a room that is not in it. Run it with `./dev check` (or `PYTHONPATH=.ci lint-imports`).
"""

import sys
from typing import NamedTuple

import grimp
from importlinter import Contract, ContractCheck, fields, output


class Row(NamedTuple):
    room: str
    allowed: tuple[str, ...]


class RowField(fields.Field[Row]):
    """One line of the table: `room -> room, room`."""

    def parse(self, raw_data: str | list[str]) -> Row:
        room, arrow, allowed = str(raw_data).partition("->")
        if not arrow:
            raise fields.ValidationError(f"{raw_data!r} is not of the form 'room -> room, room'")
        return Row(room.strip(), tuple(name.strip() for name in allowed.split(",") if name.strip()))


class RoomsContract(Contract):
    """Every direct import from one room into another stands in the row of the importer."""

    type_name = "rooms"

    rooms = fields.ListField(subfield=RowField())
    standard_library_only = fields.ListField(subfield=fields.StringField(), required=False)
    effect_free = fields.ListField(subfield=fields.StringField(), required=False)
    effects = fields.ListField(subfield=fields.StringField(), required=False)

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        root = self.session_options["root_packages"][0]
        faults: list[str] = []
        for module in sorted(graph.find_descendants(root)):
            name = module.removeprefix(f"{root}.")
            row = self._row_of(name)
            if row is None:
                faults.append(f"{module}: its room is not in the table of pyproject.toml")
                continue
            for imported in sorted(graph.find_modules_directly_imported_by(module)):
                fault = self._fault(name, row, imported, root)
                if fault:
                    details = graph.get_import_details(importer=module, imported=imported)
                    lines = ", ".join(str(line) for line in sorted({d["line_number"] for d in details}))
                    faults.append(f"{module} line {lines} imports {imported}: {fault}")
        return ContractCheck(kept=not faults, metadata={"faults": faults})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for fault in check.metadata["faults"]:
            output.print_error(fault)

    def _row_of(self, name: str) -> Row | None:
        """The row with the longest room that holds the module."""
        rows = [row for row in self.rooms if _holds(row.room, name)]
        return max(rows, key=lambda row: len(row.room), default=None)

    def _fault(self, importer: str, row: Row, imported: str, root: str) -> str | None:
        if imported == root:
            return None
        if imported.startswith(f"{root}."):
            name = imported.removeprefix(f"{root}.")
            same_room = name.partition(".")[0] == importer.partition(".")[0]
            if same_room or "*" in row.allowed or any(_holds(room, name) for room in row.allowed):
                return None
            return f"{row.room} may import {', '.join(row.allowed) or 'no other room'}"
        if _in(self.effect_free, importer) and imported in (self.effects or ()):
            return f"{row.room} is free of effects"
        if _in(self.standard_library_only, importer) and imported not in sys.stdlib_module_names:
            return f"{row.room} may import the standard library only"
        return None


def _holds(room: str, name: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def _in(rooms: list[str] | None, name: str) -> bool:
    return any(_holds(room, name) for room in rooms or ())
