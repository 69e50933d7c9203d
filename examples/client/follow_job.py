"""Prints what happens to a job until one of its executions has ended: follow_job.py URL App/Job

The token is in JOBBUS_TOKEN. Each kind of frame is handled once: a type checker (here
`mypy --strict`) reports a kind that was left out.
"""

import asyncio
import os
import sys
from contextlib import aclosing
from typing import assert_never

from jobbus import (
    Bookmark,
    Change,
    Client,
    Command,
    DeletedExecution,
    End,
    Execution,
    Frame,
    Gap,
    Group,
    Hello,
    Job,
    JobbusError,
    Output,
    ProblemFrame,
    Record,
    RemovedGroup,
    RemovedJob,
    Reset,
    Snapshot,
    SnapshotEnd,
)


async def main(url: str, job_id: str) -> None:
    token = os.environ.get("JOBBUS_TOKEN")
    async with Client(url, token) as client, aclosing(client.events(job=[job_id])) as frames:
        async for frame in frames:
            print(words(frame), flush=True)
            if isinstance(frame, Change) and frame.type == "execution.ended":
                return


def words(frame: Frame) -> str:
    match frame:
        case Hello(user=user, resumed=resumed):
            return f"connected as {user}" + (", nothing was lost" if resumed else "")
        case Snapshot(records=records):
            return "; ".join(map(about, records)) or "nothing yet"
        case SnapshotEnd(count=count):
            return f"that was the state: {count} records"
        case Change(type=type_, record=record):
            return f"{type_}: {about(record)}" if record is not None else type_
        case Reset(reason=reason):
            return f"changes were lost ({reason}); the state follows"
        case Output(text=text):
            return text.rstrip("\n")
        case Gap(start=start, end=end):
            return f"{end - start} bytes of output are no longer kept"
        case Bookmark(id=id_):
            return f"nothing new up to {id_}"
        case ProblemFrame(problem=problem):
            return f"the stream cannot go on: {problem.detail}"
        case End(reason=reason):
            return f"the connection ends: {reason}"
        case _:
            assert_never(frame)


def about(record: Record) -> str:
    match record:
        case Execution():
            return f"execution {record.execution_id} {record.ending or record.status}"
        case Command():
            return f"command {record.command} {record.status}"
        case Job():
            return f"job {record.job_id}" + (f": {record.fault.reason}" if record.fault else "")
        case RemovedJob():
            return f"job {record.job_id} was removed"
        case DeletedExecution():
            return f"execution {record.execution_id} was deleted"
        case Group():
            return f"group {record.name}: {record.running} of {record.max_running} run"
        case RemovedGroup():
            return f"group {record.name} was removed"
        case _:
            assert_never(record)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        asyncio.run(main(sys.argv[1], sys.argv[2]))
    except JobbusError as error:
        sys.exit(str(error))
