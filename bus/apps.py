"""What an app is: a folder of jobs, and what its `app.toml` says of it. No IO, no clock."""

import msgspec

from bus.job_definition import Mistake


class AppSpec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An `app.toml`: what people are shown of the app."""

    name: str = ""
    version: str = ""
    description: str = ""


class App(msgspec.Struct, frozen=True, kw_only=True):
    """One folder of apps. `mistakes` are of its `app.toml`; its jobs are not concerned by them."""

    id: str
    spec: AppSpec = AppSpec()
    mistakes: tuple[Mistake, ...] = ()
