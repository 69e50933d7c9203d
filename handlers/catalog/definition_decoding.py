"""From the text of one `job.toml` and its defaults to a `JobSpec`, or to all that is wrong with it
and where. Pure."""

import hashlib
from collections.abc import Collection, Iterable, Sequence

from bus.apps import AppSpec
from bus.job_definition import DefinitionFault, JobSpec, Mistake, fault_of
from handlers.catalog.definition_checks import problems_of
from handlers.catalog.layers import OF_ONE_JOB, SIZE_MAX, Layer, Layers
from handlers.catalog.problem import Problem, shown
from handlers.catalog.record_decoding import RecordDecoder, decoded_at_once
from handlers.catalog.schedule_checks import completed, unknown_calendars
from handlers.catalog.slot_checks import unknown_groups

_TOO_DEEP = "lists or tables are nested too deeply"


def decode_definition(
    content: bytes,
    *,
    file: str,
    directory: str,
    defaults: Sequence[Layer] = (),
    zone: str = "UTC",
    calendars: Collection[str] | None = None,
    groups: Collection[str] | None = None,
) -> JobSpec | DefinitionFault:
    """The job that `content` defines, with what `defaults` add, or all that is wrong; first comes
    what stands first in the job's own file.

    `file` is how faults name the file, `directory` the absolute path of the job's folder; of the
    `defaults` the nearest comes first. `zone` is that of schedules that name none, `calendars`
    are the names that they may go by, `groups` those that the job may be in; None: any.
    """
    own = Layer(file, content)
    try:
        layers = Layers(own, defaults)
        mistakes = [_no_toml(layer) for layer in layers.broken]
        if layers.size > SIZE_MAX and not mistakes:
            reason = f"is larger than {SIZE_MAX // 1024} KiB together with its defaults"
            mistakes.append(Mistake(file=file, line=0, reason=reason))
        if own.fault is not None or layers.size > SIZE_MAX:
            return fault_of(mistakes)
        decoder = RecordDecoder()
        spec = completed(_job(decoder, layers, directory), zone)
        problems = decoder.problems
        if mistakes:  # then what is missing may stand there
            problems = [each for each in problems if each.path in layers.lines]
        else:
            problems += decoder.sound(problems_of(spec))
            problems += decoder.sound(unknown_calendars(spec, calendars))
            problems += decoder.sound(unknown_groups(spec, groups))
        if not problems and not mistakes:
            return spec
        return fault_of([*mistakes, *_placed(problems, layers)])
    except RecursionError:
        return DefinitionFault(file=file, line=0, reason=_TOO_DEEP)


def placed_fault(
    problems: Sequence[Problem], content: bytes, file: str, defaults: Sequence[Layer] = ()
) -> DefinitionFault:
    """Problems that were found later in a definition that was sound by itself."""
    return fault_of(_placed(problems, Layers(Layer(file, content), defaults)))


def mistakes_in_defaults(layer: Layer) -> list[Mistake]:
    """What is wrong with a `defaults.toml` whatever the jobs are that it counts for."""
    if layer.fault is not None:
        return [_no_toml(layer)]
    try:
        layers = Layers(Layer("", b""), (layer,))
        decoder = RecordDecoder()
        spec = completed(_job(decoder, layers, ""), "UTC")
        own = (each for each in problems_of(spec) if not each.rests_on)
        problems = [*decoder.problems, *decoder.sound(own)]
    except RecursionError:
        return [Mistake(file=layer.file, line=0, reason=_TOO_DEEP)]
    return _placed((each for each in problems if each.path in layer.lines), layers)


def decode_app(content: bytes, file: str) -> AppSpec | tuple[Mistake, ...]:
    """What an `app.toml` says, or all that is wrong with it."""
    layer = Layer(file, content)
    if layer.fault is not None:
        return (_no_toml(layer),)
    decoder = RecordDecoder()
    try:
        values = decoder.fields(AppSpec, layer.document, ())
    except RecursionError:
        return (Mistake(file=file, line=0, reason=_TOO_DEEP),)
    if decoder.problems:
        return tuple(_placed(decoder.problems, Layers(layer)))
    return AppSpec(**values)


def _job(decoder: RecordDecoder, layers: Layers, directory: str) -> JobSpec:
    """The job; with problems of the decoder it is only half true."""
    misplaced = layers.defaults_with(OF_ONE_JOB)
    own = {"directory": directory, "origins": layers.origins}
    if not misplaced and (spec := decoded_at_once(layers.document, JobSpec, own)) is not None:
        return spec
    for key in misplaced:
        decoder.note((key,), f"{key} belongs to one job and cannot be a default of several")
    values = decoder.fields(JobSpec, layers.document, ())
    values.setdefault("command", ())
    return JobSpec(**values, directory=directory, origins=layers.origins)


def revision_of(
    content: bytes, directory: str, defaults: Iterable[bytes] = (), zone: str = "UTC"
) -> str:
    """12 hex digits that change with the definition, its defaults, the place of its folder, and the
    zone of the service where schedules may go by that."""
    whole = hashlib.blake2b(content + b"\0" + directory.encode(), digest_size=6)
    has_schedule = b"schedule" in content
    for each in defaults:
        whole.update(b"\0" + hashlib.blake2b(each).digest())
        has_schedule = has_schedule or b"schedule" in each
    if has_schedule and zone != "UTC":
        whole.update(b"\0\0" + zone.encode())
    return whole.hexdigest()


def _no_toml(layer: Layer) -> Mistake:
    assert layer.fault is not None, layer.file
    return Mistake(file=layer.file, line=layer.fault.line, reason=layer.fault.reason)


def _placed(problems: Iterable[Problem], layers: Layers) -> list[Mistake]:
    found = {(layers.place_of(each.path), each.reason): shown(each.path) for each in problems}
    ordered = sorted(found.items(), key=lambda each: each[0][0])
    return [
        Mistake(file=place.file, line=place.line, reason=reason, key=key)
        for (place, reason), key in ordered
    ]
