"""A folder to run sweeps in, and the command."""

import os
import shutil

import pytest
from sweep_samples import FILE, make_inputs

from moonseg_jax import cli


@pytest.fixture(scope="session")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep-inputs")
    make_inputs(folder)
    return folder


@pytest.fixture
def workplace(inputs, tmp_path, monkeypatch):
    """A folder of its own with data and weights; the current one."""
    for name in ("data", "start"):
        os.symlink(inputs / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_config(workplace):
    """Writes `mine.py`: the common start, then what is given."""

    def write(text):
        (workplace / "mine.py").write_text(FILE + text)
        return workplace / "mine.py"

    return write


@pytest.fixture
def moonseg(workplace, capsys, monkeypatch):
    """Runs `moonseg sweep …`: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*words):
        try:
            code = cli.main(["sweep", *words])
        except SystemExit as stop:
            code = stop.code
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    yield run
    shutil.rmtree(workplace / "out", ignore_errors=True)
