"""What a job says about itself by sd_notify. Stdlib only."""


def parse_notify(datagram: bytes) -> dict[str, str]:
    """The assignments of an sd_notify datagram; later ones win (sd_notify(3))."""
    found: dict[str, str] = {}
    for line in datagram.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            found[name.decode("ascii", "replace")] = value.decode("utf-8", "replace")
    return found
