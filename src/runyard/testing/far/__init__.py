"""A far place for real services: a process that outlives them, the provider that asks it, fuses that stop a service.

with FarPlace(folder) as place:
    …       # `runyard serve` with place.environment, and place.section(slots=4) as a pool of its config
"""

from runyard.testing.far.fuse import Point
from runyard.testing.far.plugging import FarPlace

__all__ = ["FarPlace", "Point"]
