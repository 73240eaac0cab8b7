"""The pages by address, one file per subject."""

from runyard.web.page import View
from runyard.web.views.job import job
from runyard.web.views.jobs import jobs
from runyard.web.views.overview import overview

VIEWS: tuple[tuple[str, View], ...] = (
    ("/", overview),
    ("/jobs", jobs),
    ("/jobs/{id}", job),
)

__all__ = ["VIEWS"]
