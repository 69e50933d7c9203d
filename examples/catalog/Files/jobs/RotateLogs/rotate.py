"""Packs each log that has grown: `x.log` becomes `x.log.1.gz`, an older one `x.log.2.gz`, …"""

import gzip
import os
import shutil
from pathlib import Path

folder = Path(os.environ["JOBBUS_VAR_Folder"])
keep = int(os.environ["JOBBUS_VAR_Keep"])
size_min = int(os.environ["JOBBUS_VAR_Bytes"])


def rotate(log: Path) -> None:
    for number in range(keep, 0, -1):
        packed = log.with_name(f"{log.name}.{number}.gz")
        if not packed.exists():
            continue
        if number == keep:
            packed.unlink()
        else:
            packed.rename(log.with_name(f"{log.name}.{number + 1}.gz"))
    newest = log.with_name(f"{log.name}.1.gz")
    with log.open("r+b") as source, gzip.open(newest, "wb") as target:
        shutil.copyfileobj(source, target)
        source.truncate(0)  # lines that come between the two are lost, as with any such copy
    print(f"packed {log} into {newest.name}")


for each in sorted(folder.glob(os.environ["JOBBUS_VAR_Pattern"])):
    if each.is_file() and not each.is_symlink() and each.stat().st_size >= size_min:
        rotate(each)
