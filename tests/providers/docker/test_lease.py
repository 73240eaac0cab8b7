"""A create fits into the lease that a service really holds."""

from runyard.dispatch.ownership import LEASE_S
from runyard.dispatch.renewal import ASKS_PER_LEASE
from runyard.providers.docker.client import CREATE_S


def test_a_create_fits_into_what_is_left_of_the_default_lease_after_one_renewal_that_failed():
    assert CREATE_S < LEASE_S * (1 - 2 / ASKS_PER_LEASE)
