"""Sends one JSON document with a token that stands in the environment alone."""

import json
import os
import urllib.request

token = os.environ["JOBBUS_VAR_Token"]
body = json.dumps({"items": [{"id": 1, "left": 12}]}).encode()
request = urllib.request.Request(
    os.environ["JOBBUS_VAR_Url"],
    data=body,
    headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
)
with urllib.request.urlopen(request, timeout=30) as answer:
    print(f"sent {len(body)} bytes with the token {token}: status {answer.status}")
