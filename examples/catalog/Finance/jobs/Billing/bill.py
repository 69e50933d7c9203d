"""Writes an invoice for each order that has none: a second run, or one after a crash, bills no
order twice."""

import json
import os
import sys
from pathlib import Path

orders, invoices = Path(sys.argv[1]), Path(sys.argv[2])
if not orders.is_dir():
    sys.exit(f"there is no folder {orders}")
invoices.mkdir(parents=True, exist_ok=True)
written = 0
for order in sorted(orders.glob("*.order")):
    invoice = invoices / f"{order.stem}.invoice"
    if invoice.exists():
        continue
    lines = order.read_text(encoding="utf-8").splitlines()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    draft = invoices / f".{order.stem}.draft"
    draft.write_text(f"{fields['name']} owes {float(fields['amount']):.2f}\n", encoding="utf-8")
    draft.rename(invoice)
    written += 1
    print(f"wrote {invoice.name}")
Path(os.environ["JOBBUS_RESULT"]).write_text(json.dumps({"invoices": written}), encoding="utf-8")
