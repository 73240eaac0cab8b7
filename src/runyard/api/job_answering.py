"""The full answer about one job, as several routes give it."""

from __future__ import annotations

from starlette.responses import Response

from runyard.api.access import Call
from runyard.api.answers import job_answer, json_response
from runyard.model.job import Job


async def answer_job(call: Call, job: Job, status: int = 200) -> Response:
    attempts = await call.context.services.ledger.list_attempts(job.uid) if job.attempts else []
    return json_response(job_answer(job, attempts), status)
