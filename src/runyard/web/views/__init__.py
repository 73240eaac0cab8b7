"""The pages by address, one file per subject."""

from runyard.web.page import View
from runyard.web.views.access import access
from runyard.web.views.audit import audit
from runyard.web.views.job import job
from runyard.web.views.jobs import jobs
from runyard.web.views.machines import machine
from runyard.web.views.overview import overview
from runyard.web.views.pools import pool
from runyard.web.views.queues import queue, queues
from runyard.web.views.tenants import tenant

VIEWS: tuple[tuple[str, View], ...] = (
    ("/", overview),
    ("/jobs", jobs),
    ("/jobs/{id}", job),
    ("/queues", queues),
    ("/queues/{name}", queue),
    ("/tenants/{name}", tenant),
    ("/pools/{name}", pool),
    ("/machines/{name}", machine),
    ("/access", access),
    ("/audit", audit),
)

__all__ = ["VIEWS"]
