"""Resource quantities: `500m`, `1Gi`, `2e3`."""

import re
from decimal import Decimal

SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
}  # fmt: skip
PATTERN = re.compile(r"^([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTP]i?))?$")


def parse_quantity(text: str | int | float) -> Decimal:
    """Raises ValueError with the server's words."""
    found = PATTERN.match(str(text))
    if not found or (found[3] or "") not in SUFFIXES:
        raise ValueError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    return Decimal(found[1] + (found[2] or "")) * SUFFIXES[found[3] or ""]


def quantity_text(value: Decimal) -> str:
    """A whole number as it is, thousandths as `m`."""
    if value == value.to_integral_value():
        return str(int(value))
    return f"{int(value * 1000)}m"
