"""The process in which one parser reads one file; `limited.parse` starts it. Standard library only.

`python -I -S -B child.py LIMITS FOLDERS PARSER ARGUMENTS`, each in JSON: limits of the module resource, folders to
import from, the parser's name, and what its function `parse` gets beside the file, which is the standard input. The
answer is a line of JSON, then bytes: facts and payload, or {"refused": sentence} with its "template"
and "values", or {"failed": exception's name}.
"""

import json
import sys


def main() -> None:
    limits, folders, name, arguments = map(json.loads, sys.argv[1:])
    try:
        import resource
    except ImportError:  # Windows
        limits = {}
    for limit, value in limits.items():
        try:
            resource.setrlimit(getattr(resource, limit), (value, value))
        except (ValueError, OSError):  # macOS refuses some; nobody may raise what is lower already
            pass
    sys.path += folders  # after the standard library: nothing beside the parser can stand in for that
    payload = b""
    try:
        parser = __import__(name)
        try:
            facts, payload = parser.parse(sys.stdin.buffer, **arguments)
        except parser.Refused as refusal:
            facts = {"refused": str(refusal)[:500]}
            facts |= {name: getattr(refusal, name, None) for name in ("template", "values")}
    except Exception as error:
        facts = {"failed": type(error).__name__}
    sys.stdout.buffer.write(json.dumps(facts).encode() + b"\n")
    sys.stdout.buffer.write(payload)


main()
