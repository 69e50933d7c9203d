"""Cases that Schemathesis makes of the API's document, tried on a whole service.

Every answer must have a documented status, type and shape, and none may be our own failure.
"""

import random
from collections import Counter
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.service import Service
from transports.http.document import document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
ENDLESS = ("/api/v1/events", "/api/v1/executions/{id}/stream")
PATIENCE_S = 20.0
KNOWN = 20
REFUSED_TO_START = 503
"""During a maintenance that one of the cases began: said in the document, and no failure."""


class Trial:
    """All cases of one run against one service; `sent` counts the answers by their status."""

    def __init__(self, url: str, token: str, known: dict[str, list[str]], examples: int) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._known = known
        self._examples = examples
        self._session = requests.Session()
        self._session.trust_env = False
        self._random = random.Random(1)
        self.sent: Counter[int] = Counter()

    def run(self) -> None:
        load_all_checks()
        schema = schemathesis.openapi.from_dict(document("test"))
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), result
            operation = result.ok()
            if operation.path == "/api/v1/ws":
                continue  # no answer to plain HTTP but 426; the socket has tests of its own
            self._try(operation, GenerationMode.POSITIVE)
            if operation.query or operation.path_parameters or operation.body:
                # Without any there is nothing about the request that could be wrong.
                self._try(operation, GenerationMode.NEGATIVE)

    def _try(self, operation: Any, mode: GenerationMode) -> None:
        @seed(7)
        @settings(
            max_examples=self._examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode), aim=st.booleans())
        def one(case: Case[Any], aim: bool) -> None:
            if aim:
                self._aim(case)
            self._call(case)

        one()

    def _aim(self, case: Case[Any]) -> None:
        """Names that exist, in place of made-up ones: most of the service lies behind them."""
        of = "executionId" if "/executions/" in case.operation.path else "targetId"
        known = self._known | {"id": self._known[of]}
        for place in (case.path_parameters, case.body):
            if isinstance(place, dict):
                for name in known.keys() & place.keys():
                    place[name] = self._random.choice(known[name])

    def _call(self, case: Case[Any]) -> None:
        if case.operation.path in ENDLESS:
            self._look_at_the_head(case)
            return
        response = case.call(
            base_url=self._url, headers=self._headers, session=self._session, timeout=PATIENCE_S
        )
        self.sent[response.status_code] += 1
        if response.status_code == REFUSED_TO_START:
            assert b"maintenance" in response.content or b"not-ready" in response.content
        case.validate_response(response, checks=CHECKS[response.status_code == 503 :])

    def _look_at_the_head(self, case: Case[Any]) -> None:
        """A stream may have no end: its status and type say enough."""
        kwargs = case.as_transport_kwargs(base_url=self._url, headers=self._headers)
        with self._session.request(stream=True, timeout=PATIENCE_S, **kwargs) as response:
            self.sent[response.status_code] += 1
            documented = case.operation.definition.raw["responses"]
            assert str(response.status_code) in documented, (response.status_code, case)
            assert response.status_code < 500, case
            assert "\n" not in response.headers.get("Content-Type", "")


def trial_of(service: Service, examples: int) -> Trial:
    """With a token that no case can revoke, and things to aim at."""
    http = requests.Session()
    http.trust_env = False
    http.headers["Authorization"] = f"Bearer {service.token}"
    made = http.post(
        f"{service.url}/api/v1/tokens",
        json={"userId": "tester", "roles": ["admin"]},
        timeout=PATIENCE_S,
    )
    ended = [
        http.post(
            f"{service.url}/api/v1/commands",
            json={"command": "start", "jobId": "T/Quick"},
            headers={"Prefer": "wait=20"},
            timeout=PATIENCE_S,
        ).json()
        for _ in range(KNOWN)
    ]
    http.close()
    known = {
        "executionId": [command["executionId"] for command in ended],
        "targetId": [command["commandId"] for command in ended],
        "jobId": ["T/Quick"],
        "app": ["T"],
        "job": ["Quick"],
    }
    return Trial(service.url, made.json()["token"], known, examples)
