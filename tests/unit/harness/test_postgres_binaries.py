"""PostgreSQL's binaries are run as `nobody` by root: also from a clone below a folder that only root may enter."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.servers.postgres import UNPRIVILEGED, copied, enterable, installed

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="without root the server runs as whoever runs the tests")


def made(folder: Path) -> Path:
    """What looks like PostgreSQL's folder: a program that names its version."""
    for part in ("bin", "lib", "share"):
        (folder / part).mkdir(parents=True)
    program = folder / "bin" / "postgres"
    program.write_text('#!/bin/sh\necho "postgres (PostgreSQL) 18.0"\n')
    program.chmod(0o755)
    return folder


@ROOT_ONLY
@pytest.mark.parametrize("name", ["home", "with a space", "größe"])
def test_binaries_in_a_folder_of_roots_are_copied_to_where_the_servers_user_may_go(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / name).chmod(0o700)
    found = enterable(made(tmp_path / name / "clone"))
    command = [str(found / "bin" / "postgres"), "--version"]
    ran = subprocess.run(
        command, user=UNPRIVILEGED, extra_groups=[], cwd="/", capture_output=True, text=True, timeout=20
    )
    assert "PostgreSQL" in ran.stdout
    assert tmp_path not in found.parents
    assert {path.name for path in found.iterdir()} == {"bin", "lib", "share"}


@ROOT_ONLY
@pytest.mark.parametrize("program", ["initdb", "postgres", "pg_ctl"])
def test_a_copy_of_the_real_programs_finds_the_libraries_of_its_wheel(program: str) -> None:
    """Most are linked with libraries beside the wheel's package; a copy of that alone would not start."""
    command = [str(copied(installed()) / "bin" / program), "--version"]
    ran = subprocess.run(
        command, user=UNPRIVILEGED, extra_groups=[], cwd="/", capture_output=True, text=True, timeout=20
    )
    assert "PostgreSQL" in ran.stdout, ran.stderr
