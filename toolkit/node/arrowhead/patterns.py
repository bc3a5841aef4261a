"""Regular expressions of strangers, tried in a process of their own: some never end and hold the interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import Sequence

from toolkit.node.arrowhead.refusals import bad_payload

_PROGRAM = """
import json, re, sys
pattern, partial, texts = json.load(sys.stdin)
compiled = re.compile(pattern, re.IGNORECASE)
test = compiled.search if partial else compiled.fullmatch
json.dump([bool(test(text)) for text in texts], sys.stdout)
"""


async def matches(pattern: str, texts: Sequence[str], *, partial: bool, patience_s: float = 10.0) -> list[bool]:
    """For each text whether the pattern, whatever the case, is found in it or (not `partial`) matches all of it.

    Raises Refusal for what is no pattern and for one that takes longer than `patience_s`.
    """
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise bad_payload(f"regularExpression is not one: {error}") from None
    if not texts:
        return []
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", _PROGRAM, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(patience_s):
            output, _ = await process.communicate(json.dumps([pattern, partial, list(texts)]).encode())
    except TimeoutError:
        raise bad_payload(f"regularExpression is too slow: no result after {patience_s:g} s") from None
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    found: list[bool] = json.loads(output)
    return found
