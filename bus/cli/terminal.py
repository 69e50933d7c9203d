"""What programs printed, made fit for a terminal: it may look like something, and do nothing.

A job's output is foreign: told to a terminal as it is, it could set the clipboard, rename windows,
answer for the person, or hide lines (CWE-150). Where no terminal reads, bytes pass as they are.
"""

import codecs
import re

_SGR = r"\x1b\[[0-9;:]{0,64}m"
"""Colours and their end: all that is let through of what begins with ESC."""

_COMMANDS = re.compile(rf"{_SGR}|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_BEGUN = re.compile(r"\x1b(?:\[[0-9;:]{0,64})?\Z")
_RESET = "\x1b[0m"
_PICTURES = 0x2400


class Harmless:
    """One stream of output, in pieces of any size. Line ends, tabs, CR and colours stay; any other
    control character is shown as a sign."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = ""
        self._is_coloured = False

    def of_bytes(self, data: bytes) -> str:
        return self.of(self._decode(data))

    def of(self, text: str) -> str:
        text = self._held + text
        begun = _BEGUN.search(text)
        self._held = begun[0] if begun is not None else ""
        return _COMMANDS.sub(self._shown, text[: begun.start()] if begun is not None else text)

    def end(self) -> str:
        """What was held, and the end of all colours."""
        rest, self._held = self._held + self._decode(b"", final=True), ""
        return _COMMANDS.sub(self._shown, rest) + (_RESET if self._is_coloured else "")

    def _shown(self, match: re.Match[str]) -> str:
        found = match[0]
        if len(found) > 1:
            self._is_coloured = True
            return found
        if ord(found) < 0x20:
            return chr(_PICTURES + ord(found))
        return "\N{SYMBOL FOR DELETE}" if found == "\x7f" else "\N{REPLACEMENT CHARACTER}"
