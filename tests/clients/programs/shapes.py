"""WEATHER as a class, for the clients that take one."""

from typing import Literal

from pydantic import BaseModel, Field


class Weather(BaseModel):
    """The weather of a city."""

    city: Literal["Moscow", "Paris", "Tokyo"]
    unit: Literal["celsius", "fahrenheit"]
    days: int = Field(ge=1, le=7)
