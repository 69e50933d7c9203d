"""Wrong commands, as bytes: what no JSON is, and JSON that says nothing that can be done.

Each door makes its own of them, by what it calls the fields. What no answer may hold is here too:
words of the libraries, of the language and of the system.
"""

from collections.abc import Callable, Iterator, Mapping

FORBIDDEN = (
    *("$[", "`$", "at `", "[...]", "Object contains", "Object missing", "Expected `", "got `"),
    *(
        "codec",
        "in position",
        "invalid start byte",
        "JSON is malformed",
        "Input data",
        "Extra data",
    ),
    *("Expecting", "invalid character", "recursion", "command None", "NoneType", "<class", "dict"),
    *("int |", "| null", "str`", "Traceback", "Errno", "Error(", "msgspec", "ValueError", "b'"),
    *("Invalid value '", "Invalid enum", "surrogates not allowed", "to integer string"),
)

Fields = Callable[..., bytes]
"""Makes the JSON of a command, a start of `W/Job`, with these JSON texts in place of its own."""


def found_in(answer: str) -> list[str]:
    """The forbidden fragments that stand in an answer."""
    return [fragment for fragment in FORBIDDEN if fragment in answer]


def broken(whole: bytes) -> Iterator[tuple[str, bytes]]:
    """What is no JSON object, made of one that is."""
    inner = whole.strip()[1:-1]
    yield from {
        "empty": b"",
        "blank": b" \n ",
        "zero bytes": b"\0" * 8,
        "cut in a text": whole[: whole.rindex(b'"')],
        "without its brace": whole[: whole.rindex(b"}")],
        "a brace alone": b"{",
        "a comma at the end": b"{" + inner + b",}",
        "a comma too many": b"{," + inner + b"}",
        "no comma": b'{"a":1 ' + inner + b"}",
        "no colon": b'{"a" 1,' + inner + b"}",
        "semicolons": b"{" + inner.replace(b",", b";") + b"}",
        "single quotes": whole.replace(b'"', b"'"),
        "no quotes": whole.replace(b'"', b""),
        "curly quotes": b"{" + "“a”:1,".encode() + inner + b"}",
        "a comment": b"{/* x */" + inner + b"}",
        "a comment with a hash": b"# x\n" + whole,
        "something behind": whole + b"x",
        "two objects": whole + whole,
        "a brace too many": whole + b"}",
        "capital True": b'{"a":True,' + inner + b"}",
        "None": b'{"a":None,' + inner + b"}",
        "undefined": b'{"a":undefined,' + inner + b"}",
        "NaN": b'{"a":NaN,' + inner + b"}",
        "Infinity": b'{"a":-Infinity,' + inner + b"}",
        "hexadecimal": b'{"a":0x1F,' + inner + b"}",
        "a leading zero": b'{"a":01,' + inner + b"}",
        "a plus": b'{"a":+1,' + inner + b"}",
        "a point at the end": b'{"a":1.,' + inner + b"}",
        "a backslash": b'{"a":"C:\\Temp",' + inner + b"}",
        "half an escape": b'{"a":"\\u12",' + inner + b"}",
        "half a pair": b'{"a":"\\ud800",' + inner + b"}",
        "a line end in a text": b'{"a":"x\ny",' + inner + b"}",
        "Latin-1": b'{"a":"Gr\xfc\xdfe",' + inner + b"}",
        "UTF-16 without a mark": whole.decode().encode("utf-16-le"),
        "half of UTF-16": b"\xff\xfe" + whole.decode().encode("utf-16-le")[:-1],
        "XML": b"<Command>start</Command>",
        "YAML": b"command: start\njobId: W/Job\n",
        "a form": b"command=start&jobId=W%2FJob",
        "a hashtable": b"@{Command='start'}",
        "a list": b"[" + whole + b"]",
        "an empty list": b"[]",
        "a text": b'"start"',
        "a number": b"42",
        "null": b"null",
        "nested": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
        "a number too large": b'{"a":1e999,' + inner + b"}",
        "all names twice": b"{" + inner + b"," + inner + b"}",
        "a name of its own twice": b'{"a":1,"a":1,' + inner + b"}",
        "a name twice in two spellings": b'{"ab":1,"a\\u0062" : 2,' + inner + b"}",
    }.items()


def senseless(command: Fields, name: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """What is a JSON object and no command; `name` has the door's names of our fields."""
    word, job, variables = name["command"], name["job_id"], name["variables"]
    yield from {
        "no word": command(**{word: "null"}),
        "an unknown word": command(**{word: '"strat"'}),
        "a number as the word": command(**{word: "7"}),
        "a list as the word": command(**{word: '["start"]'}),
        "no job": command(**{job: "null"}),
        "a number as the job": command(**{job: "7"}),
        "an object as the job": command(**{job: '{"id":"W/Job"}'}),
        "an unknown job": command(**{job: '"W/Jobb"'}),
        "a list of variables": command(**{variables: '["Count"]'}),
        "a text of variables": command(**{variables: '"Count=1"'}),
        "a number of variables": command(**{variables: "1"}),
        "a list as a value": command(**{variables: '{"Count":[1]}'}),
        "an object as a value": command(**{variables: '{"Count":{"a":1}}'}),
        "an empty object as a value": command(**{variables: '{"Count":{}}'}),
        "a secret of a number": command(**{variables: '{"Key":{"secret":1}}'}),
        "a secret and more": command(**{variables: '{"Key":{"secret":"k","x":1}}'}),
        "a secret by value": command(**{variables: '{"Key":"swordfish"}'}),
        "text for a number": command(**{variables: '{"Count":"1"}'}),
        "a number for text": command(**{variables: '{"Name":1}'}),
        "a fraction": command(**{variables: '{"Count":1.5}'}),
        "a variable twice": command(**{variables: '{"Count":1,"Count":1}'}),
        "a secret twice": command(**{variables: '{"Key":{"secret":"k","secret":"l"}}'}),
        "a number of many digits": command(**{variables: '{"Count":' + "9" * 400 + "}"}),
        "a value too large": command(**{variables: '{"Count":1e999}'}),
        "text for true": command(**{variables: '{"Loud":"true"}'}),
        "an unknown choice": command(**{variables: '{"Mode":"fats"}'}),
        "an unknown variable": command(**{variables: '{"Countt":1}'}),
        "a name of emptiness": command(**{variables: '{"":1}'}),
        "a name with a slash": command(**{variables: '{"a/b~c":[]}'}),
    }.items()


VARIABLES: Mapping[str, Mapping[str, str | int | bool | list[str]]] = {
    "Count": {"type": "integer", "default": 1},
    "Name": {"type": "string", "default": "x"},
    "Loud": {"type": "boolean", "default": False},
    "Mode": {"type": "choice", "choices": ["fast", "slow"], "default": "fast"},
    "Key": {"type": "secret"},
}
"""What `W/Job` takes."""
