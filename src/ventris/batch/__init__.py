"""Batch jobs: a file of requests in OpenAI's batch format, answered into another one."""

from ventris.batch.here import Here
from ventris.batch.requests_file import RequestsFile
from ventris.batch.run import BatchJob, Outcome, run_batch

__all__ = ["BatchJob", "Here", "Outcome", "RequestsFile", "run_batch"]
