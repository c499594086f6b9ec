"""llama.cpp with a chat template of the test's: `python llama_with_template.py SOCKET WEIGHTS TEMPLATE`."""

import sys
from pathlib import Path

import xllamacpp

from scibox.engines.llama import Settings, configure


def main() -> None:
    socket, weights, template = sys.argv[1:]
    params = configure(xllamacpp.CommonParams(), Settings(socket, weights, "small", slots=1, context=1024), 2)
    params.chat_template = Path(template).read_text("utf-8")
    params.use_jinja = True
    server = xllamacpp.Server(params)
    sys.stdin.read()  # until the test closes it
    del server


if __name__ == "__main__":
    main()
