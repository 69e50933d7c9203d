"""Reads names and amounts, draws a bar for each, and leaves chart and table as artifacts."""

import csv
import json
import os
import sys
from html import escape
from pathlib import Path

BAR, GAP, LEFT, WIDTH = 24, 10, 140, 400
artifacts = Path(os.environ["JOBBUS_ARTIFACTS"])
title = os.environ["JOBBUS_VAR_Title"]
try:
    with open(os.environ["JOBBUS_VAR_File"], newline="", encoding="utf-8") as source:
        sales = [(row[0], float(row[1])) for row in csv.reader(source) if row]
except (OSError, IndexError, ValueError) as error:
    sys.exit(f"the table cannot be read: {error}")
if not sales:
    sys.exit("the table is empty")

most = max(amount for _, amount in sales) or 1
height = GAP + len(sales) * (BAR + GAP)
parts = [
    f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 80}" height="{height}" '
    f'font-family="sans-serif" font-size="13"><title>{escape(title)}</title>'
]
for number, (name, amount) in enumerate(sales):
    top = GAP + number * (BAR + GAP)
    length = max(0, amount) / most * WIDTH
    parts.append(
        f'<text x="{LEFT - 8}" y="{top + 16}" text-anchor="end">{escape(name[:20])}</text>'
        f'<rect x="{LEFT}" y="{top}" width="{length:.1f}" height="{BAR}" fill="#2f6f9f"/>'
        f'<text x="{LEFT + length + 6:.1f}" y="{top + 16}">{amount:g}</text>'
    )
(artifacts / "sales.svg").write_text("".join(parts) + "</svg>\n", encoding="utf-8")
total = sum(amount for _, amount in sales)
lines = [f"# {title}", "", *(f"- {name}: {amount:g}" for name, amount in sales), "", f"{total:g}"]
(artifacts / "sales.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
result = {"rows": len(sales), "total": total}
Path(os.environ["JOBBUS_RESULT"]).write_text(json.dumps(result), encoding="utf-8")
print(f"{len(sales)} rows, {total:g} in all")
