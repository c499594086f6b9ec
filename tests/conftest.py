from types import SimpleNamespace
import os
import pytest


@pytest.fixture(scope="session")
def manual_service():
    return SimpleNamespace(base_url=os.environ["STANDIN"], secret="sk-scibox-standin")
