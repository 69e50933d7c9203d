"""`schema`: the JSON schemas of the files that people write, for editors."""

from typing import Annotated

from cyclopts import Parameter

from jobbus.cli.exits import Exit
from jobbus.service.schemas import encoded_schema

Flag = Annotated[bool, Parameter(negative=())]


def schema(
    *, service: Flag = False, defaults: Flag = False, app: Flag = False, calendars: Flag = False
) -> int:
    """Print the JSON schema of job.toml, with which editors complete and check it.

    A file begins with `#:schema PATH-OR-URL`, and taplo or VS Code's Even Better TOML use it. A
    service has it at /schemas/job.toml.json.

    Parameters
    ----------
    service
        That of jobbus.toml instead.
    defaults
        That of defaults.toml instead.
    app
        That of app.toml instead.
    calendars
        That of calendars.toml instead.
    """
    asked = {
        "jobbus.toml": service,
        "defaults.toml": defaults,
        "app.toml": app,
        "calendars.toml": calendars,
    }
    file = next((name for name, is_asked in asked.items() if is_asked), "job.toml")
    text = encoded_schema(file)
    assert text is not None, file
    print(text.decode(), end="")
    return Exit.OK
