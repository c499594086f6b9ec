"""Many `openai` clients at once, each with one call, as a class has them that begins an exercise.

Prints, for each, the seconds until its answer, or what it failed with.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI


def ask(number: int) -> dict[str, object]:
    """One client, one call."""
    began = time.monotonic()
    try:
        with OpenAI() as client:
            answer = client.chat.completions.create(
                model="chatty", messages=[{"role": "user", "content": f"say {number}"}]
            )
        return {"s": time.monotonic() - began, "said": answer.choices[0].message.content}
    except Exception as error:
        return {"failed": repr(error)}


count = int(sys.argv[1])
with ThreadPoolExecutor(count) as pool:
    for told in pool.map(ask, range(count)):
        sys.stdout.write(json.dumps(told) + "\n")
