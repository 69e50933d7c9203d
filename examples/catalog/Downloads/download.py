"""Downloads one file: under another name until it is whole, with progress by bytes."""

import os
import urllib.request
from pathlib import Path

PIECE = 64 * 1024
target = Path(os.environ["JOBBUS_VAR_Target"])
part = target.with_name(f".{target.name}.{os.environ['JOBBUS_EXECUTION_ID']}")
try:
    with urllib.request.urlopen(os.environ["JOBBUS_VAR_Url"], timeout=30) as answer:
        size, done = int(answer.headers.get("Content-Length") or 0), 0
        with part.open("wb") as file, open(os.environ["JOBBUS_PROGRESS"], "a") as progress:
            while piece := answer.read(PIECE):
                file.write(piece)
                done += len(piece)
                if size:
                    progress.write(f"{100 * done // size}% {done} bytes\n")
                    progress.flush()
    if size and done != size:
        raise SystemExit(f"only {done} of {size} bytes came")
    part.replace(target)
finally:
    part.unlink(missing_ok=True)
print(f"{done} bytes in {target}")
