"""Importing the package does nothing; asking for help is quick because it imports next to nothing."""

import json
import pkgutil
import subprocess
import sys
import textwrap

import scibox

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(scibox.__path__, "scibox.")
    if not module.name.endswith("__main__")
)
# Reads of code, of its metadata and of shared libraries are what an import is; anything else is I/O.
WATCH = textwrap.dedent(
    """
    import importlib, json, sys
    seen = []
    ALLOWED = (".py", ".pyc", ".so", ".pyd", ".pth", "METADATA", "RECORD", ".tmp", "pyvenv.cfg", "entry_points.txt")
    def hook(event, args):
        if event == "open" and isinstance(args[0], str) and not args[0].endswith(ALLOWED):
            if not args[0].startswith(("/proc/", "/sys/", "/etc/", "/usr/", "/dev/")) and "__pycache__" not in args[0]:
                seen.append(["open", args[0]])
        elif event.split(".")[0] in {"socket", "subprocess", "sqlite3", "urllib"} and event != "socket.__new__":
            seen.append([event, repr(args)[:200]])
        elif event in {"os.mkdir", "os.remove", "os.rename", "os.system"}:
            seen.append([event, repr(args)[:200]])
    import msgspec, numpy, starlette.applications, uvicorn, httptools, uvloop  # libraries answer for themselves
    import asyncio, ssl, sqlite3, uvicorn.protocols.http.httptools_impl, starlette.staticfiles
    sys.addaudithook(hook)
    for name in sys.argv[1:]:
        before = len(seen)
        importlib.import_module(name)
        seen[before:] = [[name, *entry] for entry in seen[before:]]
    print(json.dumps(seen))
    """
)


def test_importing_any_module_does_no_io() -> None:
    run = subprocess.run(
        [sys.executable, "-c", WATCH, *MODULES], capture_output=True, text=True, check=True, timeout=120
    )

    assert len(MODULES) > 50
    assert [entry for entry in json.loads(run.stdout) if entry[1] != "open" or "scibox" in entry[2]] == []


def test_the_watch_sees_io() -> None:
    """The test above can fail: a module that does I/O when imported is seen."""
    program = WATCH.replace("importlib.import_module(name)", "import tempfile; tempfile.mkdtemp('scibox')")
    run = subprocess.run([sys.executable, "-c", program, "this"], capture_output=True, text=True, check=True)

    assert any(entry[0] == "this" and "scibox" in entry[2] for entry in json.loads(run.stdout))


def test_help_imports_next_to_nothing() -> None:
    """`scibox --help` answers in under 0.3 s since it loads none of these (each costs 20 to 300 ms)."""
    program = (
        "import sys\nfrom scibox import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('LOADED', *sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = run.stdout.rpartition("LOADED")[2].split()

    assert "serve" in run.stdout
    heavy = {
        "asyncio",
        "uvicorn",
        "starlette",
        "msgspec",
        "numpy",
        "onnxruntime",
        "xllamacpp",
        "sqlite3",
        "ssl",
    }
    assert heavy & set(loaded) == set()


def test_serving_does_not_load_what_only_some_calls_need() -> None:
    """The compiler of schemas costs 25 ms; it is loaded with the first schema that a client sends."""
    program = "import sys, scibox.app; print('LOADED', *sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert "scibox.wire.constraints.schemas" in run.stdout.split()
    assert "llguidance" not in run.stdout.split()
