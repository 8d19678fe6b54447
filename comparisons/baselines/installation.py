"""An environment of its own for each release: what pip would bring, brought, and measured."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ... import __version__
from ..environment import PACKAGES, ROOT, SOURCES
from ..report import files
from . import file
from .file import Baseline, NotComparable
from .versions import Failed, Say, Subject, digest

# What a distribution is built of; the rest of a checkout is not copied.
DISTRIBUTED = ("pyproject.toml", "README.md", "LICENSE", "gradtwin", *SOURCES)
HEAVY = ("nvidia-", "cuda", "triton")  # prefixes of the large packages that torch brings
LAZILY = "--use-feature=fast-deps"  # an option of pip
LAST_LINES = 12  # of the output of what failed, which are shown


@dataclass(frozen=True)
class Plan:
    """What is asked of pip for a subject, and what pip would bring."""

    requirements: list[str]
    packages: list[str]

    @property
    def heavy(self) -> list[str]:
        return [package for package in self.packages if package.lower().startswith(HEAVY)]


def source(temporary: Path) -> str:
    """What pip installs of gradtwin: a copy of the source tree, so that nothing is built inside
    it and all subjects are made of the same; without one, the version that runs."""
    tree = _source_tree()
    if tree is None:
        return f"gradtwin=={__version__}"
    copy = temporary / "source"
    copy.mkdir()
    for name in DISTRIBUTED:
        if (tree / name).is_dir():
            shutil.copytree(tree / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif (tree / name).exists():
            shutil.copy(tree / name, copy / name)
    return str(copy)


def _source_tree() -> Path | None:
    """The checkout that runs, or the folder that was installed from; None if neither is there."""
    try:
        text = metadata.distribution("gradtwin").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        text = None
    url = urllib.parse.urlsplit(json.loads(text)["url"] if text else "")
    installed = [Path(urllib.request.url2pathname(url.path))] if url.scheme == "file" else []
    for tree in (ROOT, *installed):
        if all((tree / name).exists() for name in ("pyproject.toml", *SOURCES)):
            return tree
    return None


def planned(subject: Subject, source: str, say: Say) -> Plan:
    """Makes the environment if need be, and asks pip what would come into it. What the pins leave
    open is kept as it is here; if pip finds no way to do that, pip chooses."""
    kept = _kept(subject)
    if _is_installed(subject, source):
        say("its environment is there")
        return Plan([], [])
    if not subject.marker.exists():
        say("makes an environment")
        subject.environment.parent.mkdir(exist_ok=True)
        _do([sys.executable, "-m", "venv", "--clear", str(subject.environment)],
            subject.environment.parent, "no environment can be made")  # fmt: skip
        _same_configuration(subject)
    say("asks pip what would be installed")
    requirements = [source, *subject.pins]
    try:
        return _asked(subject, [*requirements, *kept])
    except Failed:
        found = _asked(subject, requirements)
        say(f"does not go with {', '.join(kept)}; pip chooses")
        return found


def _kept(subject: Subject) -> list[str]:
    """Pins of what a result depends on and the subject leaves open, without the name of a build,
    which may be one that no index has."""
    named = {canonicalize_name(Requirement(pin).name) for pin in subject.pins}
    left = [name for name in PACKAGES if canonicalize_name(name) not in named]
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in left]


def _asked(subject: Subject, requirements: list[str]) -> Plan:
    """What pip would bring. It reads no more of a package than what that depends on, else the
    question alone would bring gigabytes; a pip that cannot do that says so, and is asked again."""
    question = ["--dry-run", "--quiet", "--report", "-", *requirements]
    try:
        text = _pip(subject, [LAZILY, *question], "cannot be installed")
    except Failed as error:
        if LAZILY.partition("=")[2] not in str(error):
            raise
        text = _pip(subject, question, "cannot be installed")
    packages = [package["metadata"] for package in json.loads(text)["install"]]
    return Plan(requirements, [f"{p['name']} {p['version']}" for p in packages])


def install(subject: Subject, plan: Plan, source: str, say: Say) -> None:
    if not plan.requirements:
        return
    say(f"installs {len(plan.packages)} packages")
    subject.marker.unlink(missing_ok=True)
    _pip(subject, ["--quiet", *plan.requirements], "could not be installed")
    files.write(subject.marker, _made_of(subject, source).encode())


def _is_installed(subject: Subject, source: str) -> bool:
    """Whether the environment is whole, and of this source and these pins."""
    try:
        return subject.marker.read_text(encoding="utf-8") == _made_of(subject, source)
    except FileNotFoundError:
        return False


def _made_of(subject: Subject, source: str) -> str:
    """A digest of the source, file by file, and of what is asked for beside it."""
    tree = Path(source)
    files = sorted(path for path in tree.rglob("*") if path.is_file())
    contents = [
        [path.relative_to(tree).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()]
        for path in files
    ]
    return digest([json.dumps(contents or source), *subject.pins, *_kept(subject)])


def measured(subject: Subject, record: Sequence[str], say: Say) -> Baseline:
    """The baseline that the environment records."""
    say("measures")
    again = ["--reason", "measured again"] if subject.baseline.exists() else []
    command = [str(subject.python), "-m", "gradtwin", *record]
    _do([*command, "--out", str(subject.baseline), *again], subject.environment,
        "could not be measured")  # fmt: skip
    try:
        found = file.read(subject.baseline)
    except NotComparable as error:
        raise Failed(f"could not be measured: {error}") from None
    about = ", ".join(f"{name} {found.environment[name]}" for name in PACKAGES)
    say(f"{len(found.quantities)} results with {about}")
    return found


def _same_configuration(subject: Subject) -> None:
    """pip's configuration of the environment that runs, which is the only one that lies in it."""
    name = "pip.ini" if os.name == "nt" else "pip.conf"
    if (Path(sys.prefix) / name).exists():
        shutil.copy(Path(sys.prefix) / name, subject.environment / name)


def without_halves(subjects: Sequence[Subject]) -> None:
    """Removes the environments that are not whole."""
    for subject in subjects:
        if not subject.marker.exists():
            shutil.rmtree(subject.environment, ignore_errors=True)
        folder = subject.environment.parent
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _pip(subject: Subject, arguments: Sequence[str], wrong: str) -> str:
    command = [str(subject.python), "-m", "pip", "install", "--no-input", *arguments]
    return _do(command, subject.environment, wrong)


def _do(command: Sequence[str], folder: Path, wrong: str) -> str:
    """What the command prints. Raises Failed, with what went wrong, if it does not end well."""
    try:
        done = run(command, folder)
    except OSError as error:
        raise Failed(f"{wrong}: {error}") from None
    if done.returncode:
        lines = f"{done.stdout}\n{done.stderr}".splitlines()
        told = [line for line in lines if line.strip() and not line.startswith("WARNING:")]
        last = "\n".join(["", *told[-LAST_LINES:]]).replace("\n", "\n  ")
        raise Failed(f"{wrong} (exit status {done.returncode}){last}")
    return done.stdout


def run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder that holds nothing to import, and without the variables by which
    another Python's packages or another number of threads would come in."""
    variables = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME") and not name.endswith("_NUM_THREADS")
    }
    return subprocess.run(
        command, cwd=folder, env=variables, capture_output=True, encoding="utf-8",
        errors="replace", check=False,
    )  # fmt: skip
