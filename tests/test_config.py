"""The configuration: what is said where wins, what is wrong is told with its line and what was meant."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from scibox.config import (
    Config,
    ConfigError,
    Deployment,
    Model,
    Server,
    check,
    load,
)

EXAMPLES = Path(__file__).parents[1] / "examples"
DEPLOYMENTS = "[[models.m.deployments]]\n"
LAPTOP_MODELS = (
    Model(
        "smollm2-135m-instruct",
        "chat",
        deployments=(Deployment(engine="llama", weights="smollm2-135m-instruct"),),
    ),
    Model(
        "multilingual-e5-small",
        "embedding",
        prefix="query: ",
        deployments=(Deployment(engine="embedder", weights="multilingual-e5-small"),),
    ),
)
MODEL = '[models.m]\nkind = "chat"\n[[models.m.deployments]]\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scibox.toml"


def told(path: Path, text: str, **environ: str) -> list[str]:
    """The problems of a text, without the folder of the test."""
    path.write_text(text)
    return [str(problem).replace(f"{path.parent}/", "") for problem in check(path, environ)]


def read(path: Path, text: str, **environ: str) -> Config:
    path.write_text(text)
    return load(path, environ)


# --- where a value comes from -------------------------------------------------------------------


def test_without_any_configuration_it_is_a_laptop() -> None:
    config = load(None, {})

    assert config == Config(source=None, data=config.data, models=LAPTOP_MODELS)
    assert config.data.name == "scibox"


def test_the_laptop_example_is_the_default_written_out() -> None:
    shipped = load(None, {})

    assert load(EXAMPLES / "laptop.toml", {}) == Config(
        source=EXAMPLES / "laptop.toml", data=shipped.data, models=shipped.models
    )
    from scibox.config.load import LAPTOP

    assert LAPTOP.read_bytes() == (EXAMPLES / "laptop.toml").read_bytes()


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.name)
def test_every_example_is_right(example: Path) -> None:
    assert check(example, {"VLLM_API_KEY": "x"}) == ()


def test_a_file_without_models_serves_the_laptop_s(path: Path) -> None:
    assert read(path, "[server]\nport = 5000\n").models == LAPTOP_MODELS


def test_the_vllm_example_is_the_original_service() -> None:
    config = load(EXAMPLES / "vllm.toml", {"VLLM_API_KEY": "x"})

    assert [model.name for model in config.models] == ["Qwen2.5-72B-Instruct-AWQ", "bge-m3"]
    assert config.models[0].deployments == (
        Deployment(url="http://gpu1:8000/v1", upstream_key_env="VLLM_API_KEY", dialect="vllm"),
    )
    assert config.models[1].deployments[0].dialect is None


def test_a_replica_has_from_its_deployment_what_it_does_not_say(path: Path) -> None:
    text = (
        MODEL + "slots = 2\ndialect = 'vllm'\n"
        "replicas = [{ url = 'http://a/v1' }, { url = 'http://b/v1', slots = 3 }, { engine = 'fake', count = 2 }]\n"
    )
    [deployment] = read(path, text).models[0].deployments

    assert deployment.replicas == (
        Deployment(url="http://a/v1", slots=2, dialect="vllm"),
        Deployment(url="http://b/v1", slots=3, dialect="vllm"),
        Deployment(engine="fake", slots=2, count=2),
    )
    assert [one.engine for one in deployment.each] == [None, None, "fake", "fake"]


@pytest.mark.parametrize(
    ("names", "kind", "problem"),
    [
        ("['m']", "chat", "'m' cannot stand in for itself"),
        ("['nn']", "chat", "there is no model 'nn' to stand in for 'm'; did you mean 'n'?"),
        ("['n']", "rerank", "it is of kind rerank"),
    ],
)
def test_a_model_that_stands_in_is_another_of_its_kind(
    path: Path, names: str, kind: str, problem: str
) -> None:
    text = (
        f"[models.m]\nkind = 'chat'\nfallback_models = {names}\n[[models.m.deployments]]\nurl = 'http://x/v1'\n"
        f"[models.n]\nkind = '{kind}'\n[[models.n.deployments]]\nurl = 'http://x/v1'\n"
    )
    with pytest.raises(ConfigError, match=re.escape(problem)):
        read(path, text)


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(path: Path) -> None:
    path.write_text("[server]\nport = 1\nheartbeat_s = 1\n[engines.llama]\nslots = 1\n")
    environ = {"SCIBOX_SERVER_PORT": "2", "SCIBOX_ENGINES_LLAMA_SLOTS": "2"}

    config = load(path, environ, {"server.port": 3, "server.host": None})

    assert config.server == Server(host="127.0.0.1", port=3, heartbeat_s=1.0)
    assert config.llama.slots == 2


def test_the_environment_names_the_file_and_a_flag_wins_over_it(path: Path, tmp_path: Path) -> None:
    path.write_text("[server]\nport = 1\n")
    other = tmp_path / "other.toml"
    other.write_text("[server]\nport = 2\n")

    assert load(None, {"SCIBOX_CONFIG": str(path)}).server.port == 1
    assert load(other, {"SCIBOX_CONFIG": str(path)}).server.port == 2


def test_an_empty_variable_is_not_set() -> None:
    assert load(None, {"SCIBOX_SERVER_PORT": ""}).server.port == 4000


def test_variables_of_clients_and_tests_and_upstream_keys_are_left_alone(path: Path) -> None:
    text = MODEL + 'url = "http://gpu1/v1"\nupstream_key_env = "SCIBOX_VLLM"\n'
    environ = {"SCIBOX_API_KEY": "sk-x", "SCIBOX_KEY": "x", "SCIBOX_BASE_URL": "x", "SCIBOX_TEST_LONG": "1"}

    assert told(path, text, SCIBOX_VLLM="x", **environ) == []


def test_paths_of_a_file_start_at_its_folder(path: Path) -> None:
    (path.parent / "w.gguf").write_bytes(b"GGUF" + bytes(20))
    config = read(path, 'data = "here"\n' + MODEL + 'engine = "llama"\nweights = "./w.gguf"\n')

    assert config.data == path.parent / "here"
    assert config.models[0].deployments[0].weights == str(path.parent / "w.gguf")


def test_the_kind_comes_from_the_catalogue_where_it_is_not_said(path: Path) -> None:
    text = '[models.m]\n[[models.m.deployments]]\nengine = "embedder"\nweights = "bge-m3"\n'

    assert read(path, text).models[0].kind == "embedding"


def test_an_embedding_model_may_run_on_llama(path: Path) -> None:
    text = '[models.m]\n[[models.m.deployments]]\nengine = "llama"\nweights = "bge-m3-gguf"\n'

    assert read(path, text).models[0].kind == "embedding"


def test_an_own_catalogue_adds_names(path: Path) -> None:
    (path.parent / "own.toml").write_text(
        '[mine]\ndescription = ""\nkind = "chat"\nengine = "llama"\n'
        'context = 9\nlicence = "MIT"\nsize_bytes = 1\n'
        f'[[mine.sources]]\nfile = "x"\nsha256 = "{"a" * 64}"\n'
    )
    model = '[models.m]\n[[models.m.deployments]]\nengine = "llama"\nweights = "mine"\n'

    assert read(path, 'catalogue = "own.toml"\n' + model).models[0].kind == "chat"
    assert told(path, 'catalogue = "none.toml"\n' + model)[0].startswith("scibox.toml:1: catalogue: ")


def test_a_slash_at_the_end_of_a_url_is_dropped(path: Path) -> None:
    assert read(path, MODEL + 'url = "http://gpu1/v1/"\n').models[0].deployments[0].url == "http://gpu1/v1"


def test_where_reasoning_stands_is_said_of_the_model(path: Path) -> None:
    text = MODEL.replace("\n[[", '\nreasoning = "opened"\n[[') + "engine = 'fake'"

    assert read(path, text).models[0].reasoning == "opened"


# --- what is wrong ------------------------------------------------------------------------------


def test_all_problems_are_told_at_once_in_the_order_of_the_lines(path: Path) -> None:
    problems = told(path, MODEL + 'url = "gpu1"\n[server]\nprot = 1\nport = 0\n', SCIBOX_SERVR_PORT="1")

    assert [problem.partition(": ")[0] for problem in problems] == [
        "environment",
        "scibox.toml:4",
        "scibox.toml:6",
        "scibox.toml:7",
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("dta = 'x'", "scibox.toml:1: unknown name 'dta' in the file; did you mean 'data'?"),
        ("[server]\nprot = 1", "scibox.toml:2: unknown name 'prot' in [server]; did you mean 'port'?"),
        ("[engines.lama]", "scibox.toml:1: unknown name 'lama' in [engines]; did you mean 'llama'?"),
        ("[aliases]\na = 'b'", "scibox.toml:1: unknown name 'aliases' in the file"),
        ("server = 3", "scibox.toml:1: 'server' must be a table: [server]"),
        ("[engines]\nllama = 3", "scibox.toml:2: 'llama' must be a table: [engines.llama]"),
        ("[server]\nport = 0", "scibox.toml:2: server.port must be a whole number from 1 to 65535, not 0"),
        ("[server]\nport = '4'", "server.port must be a whole number from 1 to 65535, not '4'"),
        ("[server]\nport = true", "server.port must be a whole number from 1 to 65535, not True"),
        ("[server]\nport = 4.0", "server.port must be a whole number"),
        ("[server]\nhost = ''", "server.host must not be empty"),
        ("[server]\nhost = 1", "server.host must be a text, not 1"),
        ("[deadlines]\ntotal_s = -1", "deadlines.total_s must be a number from 0.001 to 604800, not -1"),
        ("[deadlines]\ntotal_s = nan", "deadlines.total_s must be a number"),
        ("data = 3", "data must be a path, not 3"),
        ('data = "a\\u0000b"', "data must not have a NUL character"),
        (MODEL + 'engine = "llama"\nweights = "/a\\u0000b"', "weights must not have a NUL character"),
        ("[server]\ntls_key = 'no.pem'", "server.tls_key needs server.tls_certificate beside it"),
        ("[server]\ntls_key = 'no.pem'", "server.tls_key: there is no file"),
        ("[server\nport = 1", "scibox.toml:1: not valid TOML"),
        ("a = 1\nb = 'x", "scibox.toml:2: not valid TOML"),
        ("a = 1\na = 2", "scibox.toml:2: not valid TOML"),
        ("models = 3", "scibox.toml:1: 'models' must have one table for each model"),
        ("[models]", "scibox.toml:1: 'models' must have one table for each model"),
        ("[models]\nm = 3", "scibox.toml:2: 'm' must be a table"),
        ("[models.m]\nkind = 'chat'", "scibox.toml:1: model 'm' needs at least one deployment"),
        (
            f"[models.m]\nkind = 'chat'\nprefix = 'q: '\n{DEPLOYMENTS}url = 'http://x/v1'",
            "scibox.toml:3: 'prefix' means nothing to a model of kind \"chat\"",
        ),
        (
            f"[models.m]\nkind = 'rerank'\n{DEPLOYMENTS}engine = 'fake'",
            'scibox.toml:3: a model of kind "rerank" needs the url of an upstream that ranks',
        ),
        (
            f"[models.m]\nkind = 'embedding'\n{DEPLOYMENTS}engine = 'llama'\nweights = 'smollm2-135m-instruct'\nslots = 2",
            "scibox.toml:6: an embedding model on the engine 'llama' has one slot",
        ),
        (
            f"[models.m]\ntoken_ids = 'own'\n{DEPLOYMENTS}engine = 'embedder'\nweights = 'multilingual-e5-small'",
            "scibox.toml:2: the engine 'embedder' takes texts, no ids of its own",
        ),
        (
            "[models.m]\nkind = 'chatty'",
            "scibox.toml:2: kind must be one of 'chat', 'embedding', 'rerank', not 'chatty'",
        ),
        (
            "[models.m]\nkinds = 'chat'",
            "scibox.toml:2: unknown name 'kinds' in [models.m]; did you mean 'kind'?",
        ),
        ("[models.m]\naliases = 'x'", "scibox.toml:2: aliases must be a list of texts, not 'x'"),
        ("[models.' ']\nkind = 'chat'", "a model's name is 1 to 200 printable characters"),
        (MODEL + "port = 3", "scibox.toml:4: unknown name 'port' in [[models.m.deployments]]"),
        (MODEL + "engine = 'vllm'", "engine must be one of 'llama', 'embedder', 'fake', not 'vllm'"),
        (MODEL + "replicas = 'x'", "scibox.toml:4: replicas must be a list of tables"),
        (MODEL + "replicas = []", "scibox.toml:4: replicas must be a list of tables"),
        (MODEL + "replicas = [{ replicas = [] }]", "a replica has no replicas of its own"),
        (MODEL + "replicas = [{ slots = 2 }]", "a deployment needs an engine (with weights) or a url"),
        (MODEL + "replicas = [{ url = 'http://x' }]", "needs the path of its API"),
        (
            MODEL + "batch = 1\nreplicas = [{ url = 'http://x/v1' }]",
            "'batch' means nothing to any of the replicas",
        ),
        (
            MODEL + "port = 1\nreplicas = [{ url = 'http://x/v1' }]",
            "unknown name 'port' in [[models.m.deployments]]",
        ),
        (MODEL + "url = 'http://x/v1'\ncount = 2", "'count' means nothing to an upstream at a url"),
        (MODEL + "slots = 2", "scibox.toml:3: a deployment needs an engine (with weights) or a url"),
        (MODEL + "weights = 'qwen3-4b'", 'for these weights: engine = "llama"'),
        (MODEL + "engine = 'fake'\nurl = 'http://x/v1'", "either an engine or a url, this one has both"),
        (MODEL + "engine = 'llama'", "scibox.toml:3: the engine 'llama' needs weights"),
        (MODEL + "engine = 'llama'\nweights = 'qwen2.5-1.5b'", "did you mean 'qwen2.5-1.5b-instruct'?"),
        (MODEL + "engine = 'llama'\nweights = '/none.gguf'", "scibox.toml:5: /none.gguf does not exist"),
        (MODEL + "engine = 'embedder'\nweights = 'qwen3-4b'", "is for the engine 'llama', not 'embedder'"),
        (
            MODEL + "engine = 'llama'\nweights = 'bge-m3-gguf'",
            "is of kind embedding, and model 'm' of kind chat",
        ),
        (MODEL + "engine = 'fake'\nbatch_tokens = 3", "'batch_tokens' means nothing to the engine 'fake'"),
        (MODEL + "url = 'http://x/v1'\nthreads = 3", "'threads' means nothing to an upstream at a url"),
        (
            MODEL + "url = 'http://x/v1'\ndialect = 'tgi'",
            "dialect must be one of 'openai', 'vllm', 'llama', not 'tgi'",
        ),
        (MODEL + "engine = 'fake'\ndialect = 'vllm'", "'dialect' means nothing to the engine 'fake'"),
        (
            "[models.m]\nkind = 'chat'\nreasoning = 'yes'",
            "reasoning must be one of 'auto', 'opened', 'none', not 'yes'",
        ),
        (MODEL + "url = 'gpu1:8000/v1'", "must begin with http:// or https:// and a host"),
        (MODEL + "url = 'http://x'", "needs the path of its API, mostly 'http://x/v1'"),
        (MODEL + "url = 'http://x:y/v1'", "is not an address"),
        (MODEL + "url = 'http://x/v1?a=b'", "must not have a '?'"),
        (MODEL + "url = 'http://u:p@x/v1'", "must not carry a key or password"),
        (
            MODEL + "url = 'http://x/v1/chat/completions'",
            "must end before '/chat/completions', like 'http://x/v1'",
        ),
        (
            "[models.m]\nkind = 'chat'\nlimits = { calls_per_minut = 3 }",
            "limits has no 'calls_per_minut'; did you mean 'calls_per_minute'?",
        ),
        (
            "[models.m]\nkind = 'chat'\nowner_limits = { calls_in_flight = 0 }",
            "owner_limits has a wrong calls_in_flight: it must be at least 1, not 0",
        ),
        ("[models.m]\nkind = 'chat'\nprice = 3", "price must be a table like { prompt = 10 }, not 3"),
        (
            MODEL + "url = 'http://x/v1'\nupstream_key_env = 'NOPE'",
            "scibox.toml:5: the environment variable NOPE is not set",
        ),
        (MODEL + "url = 'http://x/v1'\nupstream_key_file = 'none'", "none cannot be read: No such file"),
        (MODEL + "url = 'http://x/v1'\nupstream_key_file = 'a'\nupstream_key_env = 'B'", "not both"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(path: Path, text: str, sentence: str) -> None:
    problems = told(path, text)

    assert any(sentence in problem for problem in problems), problems


@pytest.mark.parametrize(
    ("aliases", "sentence"),
    [
        ("['m']", "scibox.toml:3: alias 'm' is the model's own name"),
        ("['x', 'x']", "alias 'x' is already an alias of 'm'"),
        ("['n']", "alias 'n' is the name of another model, [models.n]"),
        ("['y']", "scibox.toml:8: alias 'y' is already an alias of 'm'"),
        ("['']", "aliases must be a list of texts"),
    ],
)
def test_a_name_means_one_model(path: Path, aliases: str, sentence: str) -> None:
    text = (
        f"[models.m]\nkind = 'chat'\naliases = {aliases}\n[[models.m.deployments]]\nengine = 'fake'\n"
        "[models.n]\nkind = 'chat'\naliases = ['y']\n[[models.n.deployments]]\nengine = 'fake'\n"
    )
    problems = told(path, text)

    assert any(sentence in problem for problem in problems), problems


def test_a_name_stands_on_the_line_where_it_is_written(path: Path) -> None:
    text = '\n# first\n\n["models"."a b"]\nkind = "chat"\n\n[[models."a b".deployments]]\n'
    text += 'engine = "fake"\n\nslot = 2\n'

    assert told(path, text) == [
        "scibox.toml:10: unknown name 'slot' in [[models.a b.deployments]]; did you mean 'slots'?"
    ]


def test_a_file_that_is_not_there_or_not_text_is_one_problem(path: Path) -> None:
    assert [str(problem) for problem in check(path, {})] == [
        f"{path}: cannot be read: No such file or directory"
    ]
    path.write_bytes(b"a = 1\nb = '\xff'\n")
    assert [problem.where for problem in check(path, {})] == [f"{path}:2"]


def test_an_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'SCIBOX_SERVER_PORT'"):
        load(None, {"SCIBOX_PORT": "1"})


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("SCIBOX_SERVER_PORT", "four", "SCIBOX_SERVER_PORT: server.port must be a whole number"),
        ("SCIBOX_SERVER_PORT", "70000", "not 70000"),
        ("SCIBOX_DEADLINES_TOTAL_S", "soon", "deadlines.total_s must be a number"),
        ("SCIBOX_SERVER_TLS_KEY", "/none", "SCIBOX_SERVER_TLS_KEY: server.tls_key: there is no file /none"),
    ],
)
def test_a_wrong_variable_is_told_by_its_name(variable: str, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, {variable: text})

    assert sentence in str(caught.value)


def test_a_wrong_flag_is_told_too() -> None:
    with pytest.raises(ConfigError, match=r"command line: server\.port must be"):
        load(None, {}, {"server.port": 0})


def test_numbers_may_be_written_as_whole_or_not(path: Path) -> None:
    config = read(path, "[deadlines]\ntotal_s = 60\n", SCIBOX_DEADLINES_CONNECT_S="1e1")

    assert math.isclose(config.deadlines.total_s, 60.0)
    assert math.isclose(config.deadlines.connect_s, 10.0)


def test_an_upstream_key_file_must_have_something_in_it(path: Path) -> None:
    text = MODEL + "url = 'http://x/v1'\nupstream_key_file = 'key'\n"
    (path.parent / "key").write_text("\n")
    assert told(path, text) == ["scibox.toml:5: key is empty"]

    (path.parent / "key").write_text("secret\n")
    assert read(path, text).models[0].deployments[0].upstream_key_file == path.parent / "key"
