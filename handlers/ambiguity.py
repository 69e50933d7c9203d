"""What stands in files that the journal cannot vouch for. Blocking IO.

After a damaged, lost or restored journal the table lacks executions whose files are there. They are
evidence: from then on only what was begun later may be swept. And status and result files may
contradict the table, since they may be newer than what it lost: they are doubted until all of them
have been compared.
"""

import uuid
from pathlib import Path

from bus.files import replace_file
from bus.layout import DataLayout
from bus.model import CommandRecord, Execution

NAME = "evidence-before"
DOUBTED = "files-doubted"


def protect(journal: Path, now_ms: int) -> None:
    """Nothing that was begun before now is ever swept, and files are doubted."""
    replace_file(journal / NAME, b"%d\n" % now_ms)
    replace_file(journal / DOUBTED, b"")


def are_files_doubted(journal: Path) -> bool:
    """Whether files of what has ended may differ from the table."""
    return (journal / DOUBTED).exists()


def believe_files(journal: Path) -> None:
    """All files have been compared, and are durable."""
    (journal / DOUBTED).unlink(missing_ok=True)


def protected_before_ms(journal: Path) -> int:
    """What was begun before this time stays where it is; 0 if the journal has records of all."""
    try:
        return int((journal / NAME).read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except ValueError:
        return 1 << 62  # unreadable: everything stays


def has_trace(layout: DataLayout, execution: Execution, command: CommandRecord | None) -> bool:
    """Whether a file or a folder is left of the execution: both go only when it is forgotten.

    One that has just been queued may have neither yet: the status file comes behind the journal.
    Then the file of its command still stands in the queue, where it stays until the command ends.
    """
    name = (command.id_text or command.id) if command is not None else execution.command_id
    return (
        layout.execution(execution.id).root.exists()
        or (layout.status / f"{execution.id}.json").exists()
        or (layout.queue / f"{name}.json").exists()
    )


def begun_ms(execution_id: str) -> int:
    """When an execution with an id of ours (UUIDv7) was made; 0 for other ids."""
    made = uuid.UUID(execution_id)
    return made.int >> 80 if made.version == 7 else 0
