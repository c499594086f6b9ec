"""What a changed configuration changes of what is served, and what it leaves alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from scibox.config import Config, Deployment, Llama, Model
from scibox.deployed import Deployed, Plan, Way, plan
from scibox.models.ready import Weights

FAR = Deployment(url="http://gpu1:8000/v1", slots=4)
OWN = Deployment(engine="llama", weights="/w/m.gguf")
WEIGHTS = {OWN: Weights("m", "chat", "llama", 4096, None, Path(__file__))}


def config(*deployments: Deployment, name: str = "m", **more: object) -> Config:
    return Config(None, Path("/data"), models=(Model(name, "chat", deployments=deployments),), **more)  # type: ignore[arg-type]


def planned(config: Config) -> Plan:
    return plan(config, {d: WEIGHTS[OWN] for model in config.models for d in model.deployments if d.weights})


def new(before: Config, after: Config) -> list[Way]:
    """What has to be started to get from one to the other."""
    known = set(planned(before))
    return [way for way in planned(after) if way not in known]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (config(OWN), config(OWN)),
        (config(OWN), config(replace(OWN, slots=8))),  # what it had by default
        (config(FAR, OWN), config(OWN, FAR)),  # the order is the route's
    ],
)
def test_what_has_not_changed_stays(before: Config, after: Config) -> None:
    assert new(before, after) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (config(OWN), config(replace(OWN, slots=2))),
        (config(OWN), config(OWN, llama=Llama(slots=2))),
        (config(OWN), config(OWN, name="other")),
        (config(OWN), config(OWN, OWN)),
        (config(FAR), config(replace(FAR, upstream_model="x"))),
        (config(FAR), config(replace(FAR, dialect="vllm"))),
        (config(FAR), config(replace(FAR, slots=9))),
        (config(), config(FAR)),
    ],
)
def test_what_has_changed_is_new(before: Config, after: Config) -> None:
    assert len(new(before, after)) == 1


def test_another_key_of_an_upstream_is_another_way_to_it(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    far = config(replace(FAR, upstream_key_file=secret))
    secret.write_text("first-secret")
    before = planned(far)
    secret.write_text("second-secret")
    after = planned(far)

    assert set(before) != set(after)
    assert "first-secret" not in repr(before)


async def test_what_is_dropped_stays_as_long_as_a_call_uses_it(tmp_path: Path) -> None:
    before, after = planned(config(FAR, name="a")), planned(config(FAR, name="b"))
    deployed = Deployed(tmp_path, lambda event: None)
    deployed.begin(before)
    deployed.adopt(before)
    [route] = deployed.routes
    with route:
        deployed.begin(after)
        deployed.adopt(after)
        await deployed.sweep()
        assert len(deployed.replicas) == 2
        deployed.release()
        await deployed.sweep()
        assert len(deployed.replicas) == 2
    await deployed.sweep()

    assert [one.card.name for one in deployed.routes] == ["b"]
    assert len(deployed.replicas) == 1


async def test_a_plan_that_is_not_adopted_leaves_nothing_behind(tmp_path: Path) -> None:
    before, after = planned(config(FAR, name="a")), planned(config(FAR, name="b"))
    deployed = Deployed(tmp_path, lambda event: None)
    deployed.begin(before)
    deployed.adopt(before)
    kept = deployed.replicas
    deployed.begin(after)
    deployed.release()
    await deployed.sweep()

    assert deployed.replicas == kept
    assert [one.card.name for one in deployed.routes] == ["a"]


def test_a_deployment_has_a_way_to_each_replica() -> None:
    both = Deployment(replicas=(FAR, replace(OWN, count=2)))
    [[far, *own], [last]] = planned(config(both, FAR)).deployments["m"]

    assert far.deployment == FAR
    assert [way.deployment.engine for way in own] == ["llama", "llama"]
    assert len({far, *own, last}) == 4  # equal ones have numbers, so that each has its child
