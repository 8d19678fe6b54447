"""The command `gradtwin versions`: which results change from one release of a package to the
next."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import __version__
from . import baseline, diff, diff_report, environment, report
from .baseline import Baseline, NotComparable
from .quantities import choices
from .record_command import STYLES
from .session import Jobs, known

# What a distribution is built of; the rest of a checkout is not copied.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "gradtwin", *environment.SOURCES)
HEAVY = ("nvidia-", "cuda", "triton")  # that names of packages begin with which torch brings
LAZILY = "--use-feature=fast-deps"  # of pip
LAST_LINES = 12  # of what failed
COLUMNS = ("id", "group", "name", "class", "side", "size")  # of a diff, which `summary` reads

Say = Callable[[str], None]


class Failed(Exception):
    """A step that went wrong, with the last lines that it printed."""


@dataclass(frozen=True)
class Subject:
    """A SPEC: what it pins, and where its environment and its baseline lie."""

    pins: tuple[str, ...]
    environment: Path
    baseline: Path

    @property
    def title(self) -> str:
        return ", ".join(self.pins)

    @property
    def python(self) -> Path:
        scripts = Path("Scripts", "python.exe") if os.name == "nt" else Path("bin", "python")
        return self.environment / scripts

    @property
    def marker(self) -> Path:
        """Is there when the installation is whole, and says of what it was made."""
        return self.environment / "gradtwin-installed"


@dataclass(frozen=True)
class Plan:
    """What is asked of pip for a subject, and what pip would bring."""

    requirements: list[str]
    packages: list[str]

    @property
    def heavy(self) -> list[str]:
        return [package for package in self.packages if package.lower().startswith(HEAVY)]


def versions_command(
    specs: Annotated[
        list[str],
        typer.Argument(
            metavar="SPEC SPEC…",
            help="A version of torch, 2.12.0, or requirements: numpy==2.3.5, joined by commas.",
        ),
    ],
    only: Annotated[
        list[str] | None,
        typer.Option(help="Table, op, optimizer, schedule or model; repeated. All without."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps baselines, versions.csv and environments."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Install, even if that brings gigabytes.")
    ] = False,
    repeats: Annotated[
        int, typer.Option(help="Further measurements, one ulp away, for the spread.", min=0)
    ] = 0,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(diff.CLASSES[1:])}; can be repeated. worse and different."),
    ] = None,
    jobs: Jobs = 0,
) -> None:
    """Installs each SPEC in an environment of its own, records a baseline there, and shows what
    moved from each to the next.

    What a SPEC does not name stays as it is here, where pip allows it. Exit status: 0 nothing
    worse, 1 something worse or different, 2 a SPEC that could not be installed or measured.
    """
    failing = tuple(fail_on or (diff.WORSE, diff.DIFFERENT))
    for kind in failing:
        known("class", kind, diff.CLASSES[1:])
    for name in only or ():
        known("name", name, choices())
    console = Console(highlight=False)
    with tempfile.TemporaryDirectory(prefix="gradtwin-") as temporary:
        folder = _folder(out) if out else Path(temporary)
        subjects = _subjects(specs, folder)
        record = ["record", *(only or ()), "--repeats", str(repeats), "--jobs", str(jobs)]
        try:
            found = _all_measured(subjects, _source(Path(temporary)), record, yes, console)
        finally:
            _without_halves(subjects)
        diffs = {(old, new): held(found[old], found[new]) for old, new in itertools.pairwise(found)}
        for (old, new), moved in diffs.items():
            show(console, f"{old.title} → {new.title}", moved, failing)
        if out and found:
            frames = [
                summary(moved).assign(old=old.title, new=new.title)
                for (old, new), moved in diffs.items()
            ]
            if frames:
                frame = pd.concat(frames, ignore_index=True)
                report.write(folder / "versions.csv", frame.to_csv(index=False).encode())
            console.print(f"files: {out}{os.sep}", style="dim", markup=False)
    if len(found) < len(subjects):
        missing = [subject.title for subject in subjects if subject not in found]
        console.print(f"not measured: {'; '.join(missing)}", style="bold red", markup=False)
        raise typer.Exit(2)
    bad = any(moved.counts[kind] for moved in diffs.values() for kind in failing)
    raise typer.Exit(1 if bad else 0)


def pins(spec: str) -> tuple[str, ...]:
    """The requirements that a SPEC consists of; a bare version is one of torch.

    Raises ValueError for what is neither, and where a package is named twice.
    """
    parts: list[str] = []
    for part in map(str.strip, spec.split(",")):
        if parts and part.startswith(("<", ">", "=", "!", "~")):  # "numpy>=2,<2.3" is one
            parts[-1] += f",{part}"
        else:
            parts.append(part)
    found = [_requirement(part) for part in parts]
    names = [canonicalize_name(requirement.name) for requirement in found]
    if len(set(names)) < len(names):
        raise ValueError(f"expected each package once, got {spec!r}")
    return tuple(map(str, found))


def _requirement(text: str) -> Requirement:
    """The requirement that the text is. It must name a version: a bare name is rather one that
    was meant for --only than a package to be fetched."""
    try:
        return Requirement(f"torch=={Version(text)}")
    except InvalidVersion:
        pass
    try:
        found = Requirement(text)
        if found.specifier or found.url:
            return found
    except InvalidRequirement:
        pass
    raise ValueError(
        f"expected a version of torch like 2.12.0 or a requirement like numpy==2.3.5, got {text!r}"
    )


def _subjects(specs: Sequence[str], folder: Path) -> list[Subject]:
    try:
        asked = [pins(spec) for spec in specs]
        if len(asked) < 2:
            raise ValueError(f"expected two or more, got {len(asked)}")
        if len(set(asked)) < len(asked):
            raise ValueError(f"expected each once, got {' '.join(specs)}")
        found = [
            Subject(p, _environments(folder) / f"{_slug(p)}-{sys.implementation.cache_tag}",
                    folder / f"{_slug(p)}.parquet") for p in asked
        ]  # fmt: skip
        for subject in found:
            made = (subject.environment / "pyvenv.cfg").exists()
            if subject.environment.exists() and not made:
                raise ValueError(f"{subject.environment} is there, and no virtual environment")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="SPEC") from None
    return found


def _environments(folder: Path) -> Path:
    return folder / "environments"


def _folder(out: Path) -> Path:
    """Resolved, for the commands run elsewhere."""
    try:
        return report.folder(out.resolve())
    except OSError as error:
        raise typer.BadParameter(
            f"cannot write to {out}: {error.strerror}", param_hint="--out"
        ) from None


def _slug(requirements: Sequence[str]) -> str:
    """The name of a file; what had to be replaced in it is told apart by a digest."""
    plain = "_".join(requirements).replace("==", "-")
    safe = re.sub(r"[^\w.+-]+", "-", plain)
    return safe if safe == plain else f"{safe}-{_digest([plain])}"


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


def _source(temporary: Path) -> str:
    """What pip installs of gradtwin: a copy of the source tree, so that nothing is built inside
    it and all subjects are made of the same; without one, the version that runs."""
    tree = _source_tree()
    if tree is None:
        return f"gradtwin=={__version__}"
    copy = temporary / "source"
    copy.mkdir()
    for name in SOURCES:
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
    for tree in (environment.ROOT, *installed):
        if all((tree / name).exists() for name in ("pyproject.toml", *environment.SOURCES)):
            return tree
    return None


def _all_measured(
    subjects: Sequence[Subject], source: str, record: Sequence[str], yes: bool, console: Console
) -> dict[Subject, Baseline]:
    """The baselines of all that can be installed and measured, in order. What pip would bring is
    asked of all before anything is installed of one."""

    def attempts(todo: Sequence[Subject], work: Callable[..., Any]) -> Iterator[tuple[Any, Any]]:
        for subject in todo:

            def say(text: str, title: str = subject.title) -> None:
                console.print(f"{title}: {text}", style="dim", markup=False, soft_wrap=True)

            try:
                yield subject, work(subject, say)
            except Failed as error:
                console.print(f"{subject.title}: {error}", style="red", markup=False)

    plans = dict(attempts(subjects, lambda subject, say: _planned(subject, source, say)))
    heavy = {subject: plan.heavy for subject, plan in plans.items() if plan.heavy}
    for subject, packages in heavy.items():
        text = f"{subject.title} brings gigabytes: {', '.join(packages)}"
        console.print(text, style="yellow", markup=False)
    if heavy and not yes:
        console.print("nothing was installed: --yes installs it", style="bold red", markup=False)
        raise typer.Exit(2)

    def work(subject: Subject, say: Say) -> Baseline:
        _install(subject, plans[subject], source, say)
        return _measured(subject, record, say)

    return dict(attempts(list(plans), work))


def _planned(subject: Subject, source: str, say: Say) -> Plan:
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
    left = [name for name in environment.PACKAGES if canonicalize_name(name) not in named]
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


def _install(subject: Subject, plan: Plan, source: str, say: Say) -> None:
    if not plan.requirements:
        return
    say(f"installs {len(plan.packages)} packages")
    subject.marker.unlink(missing_ok=True)
    _pip(subject, ["--quiet", *plan.requirements], "could not be installed")
    report.write(subject.marker, _made_of(subject, source).encode())


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
    return _digest([json.dumps(contents or source), *subject.pins, *_kept(subject)])


def _measured(subject: Subject, record: Sequence[str], say: Say) -> Baseline:
    """The baseline that the environment records."""
    say("measures")
    again = ["--reason", "measured again"] if subject.baseline.exists() else []
    command = [str(subject.python), "-m", "gradtwin", *record]
    _do([*command, "--out", str(subject.baseline), *again], subject.environment,
        "could not be measured")  # fmt: skip
    try:
        found = baseline.read(subject.baseline)
    except NotComparable as error:
        raise Failed(f"could not be measured: {error}") from None
    about = ", ".join(f"{name} {found.environment[name]}" for name in environment.PACKAGES)
    say(f"{len(found.quantities)} results with {about}")
    return found


def _same_configuration(subject: Subject) -> None:
    """pip's configuration of the environment that runs, which is the only one that lies in it."""
    name = "pip.ini" if os.name == "nt" else "pip.conf"
    if (Path(sys.prefix) / name).exists():
        shutil.copy(Path(sys.prefix) / name, subject.environment / name)


def _without_halves(subjects: Sequence[Subject]) -> None:
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
    """What the command prints. Failed, with what went wrong, if it does not end well."""
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


def held(old: Baseline, new: Baseline) -> diff.Diff:
    """The new baseline against the old one, also if nothing is in both: a release may lack all the
    functions that were asked for."""
    try:
        return diff.compare(old, new)
    except NotComparable:
        pass
    rows = [
        (q.id, q.table, q.name, kind, "", 0.0)
        for kind, side in ((diff.REMOVED, old), (diff.NEW, new))
        for q in side.quantities.values()
    ]
    changed = environment.changes(old.environment, new.environment)
    return diff.Diff(pd.DataFrame(rows, columns=COLUMNS), changed, [])


def summary(found: diff.Diff) -> pd.DataFrame:
    """One row for each name of which something moved, the worst first: its classes, the side that
    moved, and how far and where it moved most."""
    totals = found.table["name"].value_counts()
    rows = []
    for name, group in found.moved.groupby("name", sort=False):  # which is sorted already
        counts = group["class"].value_counts()
        top = group.iloc[int(group["size"].argmax())]
        rows.append(
            {
                "name": name,
                "class": group["class"].iloc[0],
                "classes": ", ".join(f"{counts[k]} {k}" for k in diff.CLASSES[::-1] if k in counts),
                "of": int(totals[name]),
                "side": ", ".join(dict.fromkeys(side for side in group["side"] if side)),
                "moved": float(top["size"]),
                "at": top["id"],
            }
        )
    columns = ["name", "class", "classes", "of", "side", "moved", "at"]
    return pd.DataFrame(rows, columns=columns)


def show(console: Console, title: str, found: diff.Diff, fail_on: Sequence[str]) -> None:
    """What changed around it, a line for each name that moved, and the outcome."""
    console.print(f"\n{title}", style="bold", markup=False)
    for name, (old, new) in found.environment.items():
        console.print(f"{name}: {old} → {new}", style="dim", soft_wrap=True, markup=False)
    rows = summary(found)
    table = Table(box=None, pad_edge=False)
    for column in ("name", "classes", "of", "side", "moved", "most at"):
        table.add_column(column, overflow="fold")
    for row in rows.to_dict("records"):
        cells = (row["name"], row["classes"], str(row["of"]), row["side"], f"{row['moved']:.2g}")
        table.add_row(*cells, escape(row["at"]), style=STYLES[row["class"]])
    if len(rows):
        console.print(table)
    if not len(found.table):
        console.print("neither has anything that was asked for", style="bold yellow")
        return
    bad = any(found.counts[kind] for kind in fail_on)
    console.print(diff_report.outcome(found, fail_on), style="bold red" if bad else "bold green")
