"""Asks for one page and says how it was answered; the exit code is 1 if that is not well."""

import os
import sys
import time
import urllib.error
import urllib.request

url = os.environ["JOBBUS_VAR_Url"]
words = os.environ.get("JOBBUS_VAR_Words", "")
begun_s = time.monotonic()
try:
    with urllib.request.urlopen(url, timeout=float(os.environ["JOBBUS_VAR_Seconds"])) as answer:
        text = answer.read(1_000_000).decode("utf-8", "replace")
        status = answer.status
except urllib.error.HTTPError as error:
    sys.exit(f"{url} answers with status {error.code}")
except OSError as error:
    sys.exit(f"{url} does not answer: {getattr(error, 'reason', error)}")
took_ms = (time.monotonic() - begun_s) * 1000
if words not in text:
    sys.exit(f"{url} answers, but without {words!r}")
print(f"{url}: status {status} after {took_ms:.0f} ms")
