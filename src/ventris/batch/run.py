"""A batch job from its first line to its last, through breaks of any kind.

Every answer goes into a journal beside the output as soon as it is there. A run that finds a journal answers
only what is missing in it. At the end the answers are put into the order of the requests, in one file that is
there whole or not at all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import orjson

from ventris.batch.answer_line import request_key
from ventris.batch.requests_file import RequestLine, RequestsFile
from ventris.engine.errors import BadInput
from ventris.journal import Journal
from ventris.models.cache_folder import written_whole

Json = dict[str, Any]
Keep = Callable[[RequestLine, Json], None]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job.

    Attributes:
        answered, failed: Lines with an answer, and with an error in its place.
        kept: Of both, those that an earlier run had brought.
    """

    answered: int
    failed: int
    kept: int


class BatchJob:
    """Requests, and where their answers go.

    Args:
        settings: Everything besides the requests that answers depend on, as JSON values.
    """

    def __init__(self, requests: RequestsFile, output: Path, settings: Mapping[str, Any]) -> None:
        self.requests = requests
        self.output = output
        self.settings = dict(settings)
        said = orjson.dumps(self.settings, option=orjson.OPT_SORT_KEYS)
        self._digest = sha256(said).hexdigest()

    @property
    def journal_path(self) -> Path:
        """Where answers are kept until all are there."""
        return self.output.with_name(self.output.name + ".journal")

    def key(self, line: RequestLine, body: dict[str, Any]) -> str:
        """The digest that names a request of this job."""
        return request_key(line, body, self._digest)

    def finished(self) -> bool:
        """Whether an earlier run has brought everything.

        Raises:
            BadInput: if the output is there and is that of something else.
        """
        if self.journal_path.exists() or not self.output.exists():
            return False
        try:
            with self.output.open("rb") as file:
                found = [orjson.loads(line)["id"] for line in file]
        except (OSError, ValueError, TypeError, KeyError):
            found = []
        expected = [f"batch_req_{self.key(line, self.requests.body(line))}" for line in self.requests.lines]
        if found != expected:
            raise BadInput(
                f"{self.output} is there already and does not answer these requests with these settings; "
                "move it away, or name another output"
            )
        return True

    def open_journal(self, fingerprint: str) -> Journal:
        """The journal of this job on this model, claimed for this process.

        Raises:
            BadInput: as :class:`Journal`.
        """
        about = {"requests": self.requests.digest, "settings": self.settings, "model": fingerprint}
        journal = Journal(self.journal_path, about)
        try:
            journal.claim()
        except BadInput:
            journal.close()
            raise
        return journal


class Answerer(Protocol):
    """What answers a job's requests.

    Attributes:
        fingerprint: Names what decodes; a journal is gone on with by the same one only.
    """

    @property
    def fingerprint(self) -> str: ...

    def answer(self, job: BatchJob, missing: Sequence[RequestLine], keep: Keep) -> None:
        """Answer requests in any order and give every answer to ``keep`` at once, on this thread."""
        ...


def run_batch(answerer: Answerer, job: BatchJob, progress: Progress) -> Outcome:
    """Answer what is missing and write the output.

    Args:
        progress: Told what is being done, how much is done, and how much there is.

    Raises:
        BadInput: if the journal is that of another job, or a file cannot be written.
        KeyboardInterrupt: on Ctrl-C; the journal keeps what is there.
    """
    journal = job.open_journal(answerer.fingerprint)
    total = len(job.requests.lines)
    try:
        entries = zip(journal.entries(), journal.places, strict=True)
        places = {entry["line"]: place for entry, place in entries}
        kept = len(places)

        def keep(line: RequestLine, answer: Json) -> None:
            journal.add({"line": line.number, "answer": answer})
            places[line.number] = journal.places[-1]
            progress("answering", len(places), total)

        progress("answering", kept, total)
        missing = [line for line in job.requests.lines if line.number not in places]
        if missing:
            answerer.answer(job, missing, keep)
        outcome = _write(job, journal, places, kept)
    except OSError as error:
        raise BadInput(f"cannot write the answers beside {job.output}: {error.strerror}") from None
    finally:
        journal.close()
    job.journal_path.unlink(missing_ok=True)
    return outcome


def _write(job: BatchJob, journal: Journal, places: Mapping[int, int], kept: int) -> Outcome:
    failed = 0
    with written_whole(job.output) as temporary, temporary.open("wb") as file:
        for line in job.requests.lines:
            answer = journal.read(places[line.number])["answer"]
            failed += answer["response"]["status_code"] != 200
            file.write(orjson.dumps(answer) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return Outcome(len(job.requests.lines) - failed, failed, kept)
