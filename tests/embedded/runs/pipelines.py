"""Small pipelines; run as a script it compiles them into a folder.

Not imported by the tests: kfp reads annotations as they stand here, and its import is slow.
"""
# ruff: noqa: T201

import sys
from pathlib import Path

from kfp import compiler, dsl, kubernetes

component = dsl.component(base_image="python:3.11", install_kfp_package=False)


@component
def add(left: int, right: int) -> int:
    print(f"adding {left} and {right}")
    return left + right


@component
def decide(value: int, limit: int) -> bool:
    return value > limit


@component
def say(text: str):
    print(f"said: {text}")


@component
def fail(text: str):
    print("about to fail")
    raise ValueError(text)


@component
def count() -> list:
    return [1, 2, 3]


@component
def report(status: dsl.PipelineTaskFinalStatus):
    print(f"the state is {status.state}")


@component
def flaky(folder: str):
    import pathlib

    mark = pathlib.Path(folder, "tried")
    if not mark.exists():
        mark.touch()
        raise RuntimeError("first time")


@component
def leave(code: int):
    print("tried")
    raise SystemExit(code)


@component
def write_environment(names: str, folder: str):
    import os
    import pathlib

    text = "\n".join(f"{name}={os.environ.get(name)}" for name in names.split(","))
    pathlib.Path(folder, "environment").write_text(text)


@component
def linger(folder: str, stubborn: bool):
    """Note its processes, then wait for its end: it, a child, and one that leaves session and group."""
    import os
    import pathlib
    import select
    import subprocess
    import sys

    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if stubborn else ""
    script = f"import signal, time; {ignore}print('ready', flush=True); time.sleep(600)"
    runaway = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stdout=-1)
    runaway.stdout.readline()
    temporary = pathlib.Path(folder, ".pids")
    temporary.write_text(f"{os.getpid()} {child.pid} {runaway.pid}")
    temporary.rename(pathlib.Path(folder, "pids"))
    until = pathlib.Path(folder, "go")
    while not until.exists():
        select.select([], [], [], 0.05)  # under libfaketime, which a test uses, time.sleep fails
    child.kill()
    runaway.kill()


@dsl.pipeline(name="branch")
def branch(left: int = 1, limit: int = 10):
    total = add(left=left, right=2)
    decision = decide(value=total.output, limit=limit)
    decision.set_caching_options(False)
    with dsl.If(decision.output == True):  # noqa: E712 - builds the condition
        say(text="high")
    with dsl.Else():
        say(text="low")


@dsl.pipeline(name="lone-branch")
def lone_branch(left: int, limit: int = 10):
    decision = decide(value=left, limit=limit)
    with dsl.If(decision.output == True):  # noqa: E712 - builds the condition
        inner = add(left=1, right=1)
        say(text="high").after(inner)


@dsl.pipeline(name="failing")
def failing(text: str = "no luck"):
    first = add(left=1, right=2)
    broken = fail(text=text).after(first)
    say(text="never").after(broken)


@dsl.pipeline(name="everything")
def everything(folder: str):
    closing = report()
    closing.set_caching_options(False)
    with dsl.ExitHandler(closing):
        numbers = count()
        with dsl.ParallelFor(numbers.output) as number:
            add(left=number, right=1)
        flaky(folder=folder).set_retry(2)


@dsl.pipeline(name="handled")
def handled():
    with dsl.ExitHandler(report().set_caching_options(False)):
        fail(text="handled")


@dsl.pipeline(name="waiting")
def waiting(folder: str, stubborn: bool = False):
    done = linger(folder=folder, stubborn=stubborn).set_caching_options(False)
    say(text="after").after(done)


@dsl.pipeline(name="environment")
def environment(
    names: str,
    folder: str,
    ratio: float = 0.5,
    flag: bool = False,
    extra: dict = {},  # noqa: B006 - the compiler reads it
):
    write_environment(names=names, folder=folder)


@dsl.pipeline(name="hopeless")
def hopeless(code: int):
    """What only means something on a cluster stands in a second document."""
    task = leave(code=code).set_retry(2, backoff_duration="1s").set_cpu_limit("1")
    kubernetes.set_timeout(task, 60)
    kubernetes.set_security_context(task, run_as_user=65532, run_as_non_root=True)
    kubernetes.use_secret_as_env(task, "logins", {"password": "PASSWORD"}, optional=True)


PIPELINES = (hopeless, branch, lone_branch, failing, everything, handled, waiting, environment)

if __name__ == "__main__":
    for pipeline in PIPELINES:
        compiler.Compiler().compile(pipeline, str(Path(sys.argv[1], f"{pipeline.name}.yaml")))
