"""Instructor: objects of classes, by each of its ways that an OpenAI dialect has."""

import instructor
import openai
from instructor.core import InstructorRetryException
from shapes import Weather
from telling import BASE_URL, CHAT, SECRET, WEATHER_QUESTION, thing

question = [{"role": "user", "content": WEATHER_QUESTION}]


def asked(mode, secret=SECRET):
    """The library around an `openai` client."""
    return instructor.from_openai(openai.OpenAI(api_key=secret, base_url=BASE_URL, max_retries=0), mode=mode)


def of(mode):
    """One object, at the first try."""
    one = asked(mode).create(
        model=CHAT, messages=question, response_model=Weather, max_tokens=96, max_retries=0
    )
    return {"object": one.model_dump()}


@thing
def structured_by_tool():
    """By a forced function, its default."""
    return of(instructor.Mode.TOOLS)


@thing
def structured():
    """By `response_format` with a schema."""
    return of(instructor.Mode.JSON_SCHEMA)


@thing
def structured_streamed():
    """An object that grows while it is streamed."""
    partials = asked(instructor.Mode.TOOLS).create_partial(
        model=CHAT, messages=question, response_model=Weather, max_tokens=96, max_retries=0
    )
    states = [partial.model_dump() for partial in partials]
    return {"object": states[-1], "states": len(states)}


@thing
def errors():
    """What the errors become, below its own."""

    def call(model=CHAT, secret=SECRET, **other):
        try:
            asked(instructor.Mode.TOOLS, secret).create(
                model=model, messages=question, response_model=Weather, max_retries=0, **other
            )
        except InstructorRetryException as error:
            return type(error.__cause__).__name__
        return "none"

    return {
        "wrong key": call(secret="sk-scibox-nobody"),
        "wrong model": call(model="no-such-model"),
        "bad request": call(temperature=9),
    }
