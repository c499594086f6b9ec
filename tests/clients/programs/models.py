"""The list of models and one of them. Prints one JSON object."""

import json
import os
import sys

import openai

client = openai.OpenAI(api_key=os.environ["SCIBOX_API_KEY"], base_url=os.environ["SCIBOX_BASE_URL"])
listed = [model.id for model in client.models.list()]
one = client.models.retrieve("smollm2-135m-instruct")
alias = client.models.retrieve("bge-m3")
json.dump({"listed": listed, "one": one.model_dump(), "alias": alias.model_dump()}, sys.stdout)
