"""Installed from its wheel, the package leaves a user's own folders alone."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = ("manual", "reference", "comparisons", "tests")


def test_a_wheel_beside_a_project_with_the_same_folder_names(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "gradtwin", *FOLDERS[:3]):
        (source / name).symlink_to(ROOT / name)
    site = tmp_path / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--no-build-isolation", "--target", site, source], check=True
    )
    assert {p.name for p in site.iterdir() if "dist-info" not in p.name} <= {"gradtwin", "bin"}

    project = tmp_path / "project"
    for name in FOLDERS:
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text(f"mine = {name!r}\n")
    (project / "tests/test_mine.py").write_text(
        "import comparisons, gradtwin, manual, reference\n"
        "from gradtwin.comparisons import gradients\n"
        "from gradtwin.comparisons.report import pages\n"
        "from gradtwin.comparisons.trace import page\n\n"
        "def test_both_work():\n"
        "    assert (manual.mine, reference.mine) == ('manual', 'reference')\n"
        "    assert comparisons.mine == 'comparisons'\n"
        f"    assert gradtwin.__file__.startswith({str(site)!r})\n"
        "    assert len(list(gradients.rows('relu'))) > 0\n"
        "    assert b'DataTables' in pages.page('a', '', {})\n"
        "    assert all((page.HERE / name).exists() for name in page.SCRIPTS)\n"
        "    for library in (pages.PAGE.parent, page.HERE):\n"
        "        assert {p.suffix for p in (library / 'vendor').iterdir()} == {'.js', '.txt'}\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(project), str(site)])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    subprocess.run(command, cwd=project, env=environment, check=True)
    help_text = subprocess.run(
        [sys.executable, "-m", "gradtwin", "--help"],
        cwd=project,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "curves" in help_text
