import subprocess
import sys
import types

import pytest

from moonseg_jax import cli
from moonseg_jax.errors import UserError

CONFIG = "experiments/shapes_tiny.py"


@pytest.fixture
def moonseg(capsys):
    """Runs a command in this process: (exit code, standard output, standard error)."""

    def run(*words):
        try:
            code = cli.main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        streams = capsys.readouterr()
        return code, streams.out, streams.err

    return run


@pytest.fixture
def segmenter(monkeypatch):
    """Replaces `Segmenter` by one that does what it is told."""

    def install(segment):
        loaded = types.SimpleNamespace(segment=segment)
        module = types.SimpleNamespace(Segmenter=types.SimpleNamespace(load=lambda policy, refiner, **settings: loaded))
        monkeypatch.setitem(sys.modules, "moonseg_jax.predict", module)

    return install


def one_line(error):
    """The message of an error that is told in exactly one line."""
    assert error.startswith("moonseg: error: ") and error.count("\n") == 1, error
    return error.removeprefix("moonseg: error: ").rstrip("\n")


def test_help_names_every_command_and_imports_no_jax():
    script = "import sys; from moonseg_jax import cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\n"
    script += "sys.exit('jax' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, "help must not wait for jax"
    for command in (
        "quickstart",
        "segment",
        "train",
        "eval",
        "data",
        "path",
        "report",
        "rewards",
        "import",
        "export",
        "bench",
    ):
        assert f"• {command}" in run.stdout


def test_no_command_at_all_shows_the_help(moonseg):
    code, out, _ = moonseg()
    assert code == 0 and "usage: moonseg" in out


@pytest.mark.parametrize("words", [("quikstart",), ("train", "stf", "--config", CONFIG), ("segment", "a.png")])
def test_words_that_do_not_parse_exit_with_2_and_no_traceback(moonseg, words):
    code, _, error = moonseg(*words)
    assert code == 2 and "--help" in error and "Traceback" not in error


def test_a_misspelt_setting_gets_the_nearest_name(moonseg, tmp_path):
    words = ("train", "sft", "--config", CONFIG, "--out", tmp_path / "run")
    code, _, error = moonseg(*words, "--model.text.widht", "64")
    assert code == 2
    assert one_line(error) == "no setting --model.text.widht in SftConfig; did you mean --model.text.width?"
    assert "--model.text.width" in one_line(moonseg(*words, "--widht=64")[2])
    assert not (tmp_path / "run").exists()


def test_a_setting_that_cannot_work_is_told_by_its_field(moonseg, tmp_path):
    words = ("train", "sft", "--config", CONFIG, "--out", tmp_path / "run", "--model.text.width", "130")
    code, _, error = moonseg(*words)
    assert code == 2 and "text.width must be a multiple of text.heads" in " ".join(error.replace("│", "").split())


def test_help_with_a_config_lists_its_settings(moonseg):
    code, out, _ = moonseg("train", "rl", "--config", CONFIG, "--help")
    assert code == 0 and "--model.text.width INT" in out


def test_a_missing_config_lists_the_shipped_ones(moonseg):
    code, _, error = moonseg("train", "sft", "--config", "experiments/nope.py")
    assert code == 2 and "no config file experiments/nope.py" in one_line(error) and CONFIG in error
    assert "pytorch_inference" not in error, "a script is no config"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\n", "has no get_config(stage)"),
        ("x = 1\ndef get_config(stage:\n", "line 2: SyntaxError"),
        ("import no_such_module\n", "line 1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def get_config(stage):\n    return 3\n", "must return a SftConfig, but returned a int"),
        ("def get_config(stage):\n    return 1 / 0\n", "line 2: get_config('sft') failed: ZeroDivisionError"),
    ],
)
def test_a_broken_config_is_told_with_file_and_line(moonseg, tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text)
    code, _, error = moonseg("train", "sft", "--config", path, "--out", tmp_path / "run")
    assert code == 2 and str(path) in one_line(error) and said in error


def test_a_folder_that_holds_another_run_is_refused(moonseg, tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    code, _, error = moonseg("train", "sft", "--config", CONFIG, "--out", tmp_path)
    assert code == 2 and f"{tmp_path} holds another run already" in one_line(error)


def test_resuming_where_nothing_ran_is_refused(moonseg, tmp_path):
    code, _, error = moonseg("train", "rl", "--config", CONFIG, "--out", tmp_path / "none", "--resume")
    assert code == 2 and "holds no run to resume" in one_line(error)


def test_the_config_with_its_overrides_reaches_the_loop(moonseg, tmp_path, monkeypatch):
    seen = []
    loops = types.SimpleNamespace(run_rl=lambda config, run, resume, sitting: seen.append((config, run, resume)))
    monkeypatch.setitem(sys.modules, "moonseg_jax.train", loops)
    monkeypatch.setattr("moonseg_jax.train", loops, raising=False)
    words = ("train", "rl", "--config", CONFIG, "--out", tmp_path / "run", "--model.paths.max-new-tokens=40")
    assert moonseg(*words)[0] == 0
    ((config, run, resume),) = seen
    assert (config.model.paths.max_new_tokens, run.path, run.kind, resume) == (
        40,
        tmp_path / "run",
        "rl",
        False,
    )
    assert '"max_new_tokens": 40' in (run.path / "config.json").read_text()


@pytest.mark.parametrize(
    ("image", "phrase", "out", "said"),
    [
        ("here.png", "red star", "mask.gif", "must end in .png, .svg, .json"),
        ("here.png", "  ", "mask.png", "the phrase is empty"),
        ("gone.png", "red star", "mask.png", "no image"),
        ("here.png", "red star", "gone/mask.png", "there is no folder gone"),
    ],
)
def test_segment_refuses_bad_input_before_anything_is_loaded(moonseg, tmp_path, image, phrase, out, said):
    (tmp_path / "here.png").touch()
    code, _, error = moonseg("segment", tmp_path / image, phrase, "-o", out)
    assert code == 2 and said in one_line(error)


def test_a_user_error_is_one_line_and_debug_adds_the_traceback(moonseg, segmenter, tmp_path):
    def segment(image, phrase, spatial_refs):
        raise UserError(f"{phrase!r}: unknown word 'starfish'")

    segmenter(segment)
    (tmp_path / "a.png").touch()
    words = ("segment", tmp_path / "a.png", "red starfish", "-o", "mask.png")
    code, _, error = moonseg(*words)
    assert (code, one_line(error)) == (2, "'red starfish': unknown word 'starfish'")
    code, _, error = moonseg("--debug", *words)
    assert code == 2 and "Traceback" in error and error.endswith("unknown word 'starfish'\n")


def test_ctrl_c_exits_with_130_and_no_traceback(moonseg, segmenter, tmp_path):
    def segment(image, phrase, spatial_refs):
        raise KeyboardInterrupt

    segmenter(segment)
    (tmp_path / "a.png").touch()
    code, _, error = moonseg("segment", tmp_path / "a.png", "red star", "-o", "mask.png")
    assert (code, error) == (130, "moonseg: interrupted\n")


def test_no_write_permission_names_the_file(moonseg, segmenter, tmp_path):
    def segment(image, phrase, spatial_refs):
        raise PermissionError(13, "Permission denied", "/locked/mask.png")

    segmenter(segment)
    (tmp_path / "a.png").touch()
    code, _, error = moonseg("segment", tmp_path / "a.png", "red star", "-o", tmp_path / "mask.png")
    assert (code, one_line(error)) == (2, "no permission: /locked/mask.png")


def test_an_error_of_the_system_is_one_line_that_names_the_file(moonseg, segmenter, tmp_path):
    def segment(image, phrase, spatial_refs):
        raise OSError(30, "Read-only file system", "/locked/mask.png")

    segmenter(segment)
    (tmp_path / "a.png").touch()
    code, _, error = moonseg("segment", tmp_path / "a.png", "red star", "-o", "mask.png")
    assert (code, one_line(error)) == (2, "/locked/mask.png: Read-only file system")


def test_a_run_that_could_not_start_leaves_its_folder_free(moonseg, tmp_path, monkeypatch):
    def run_sft(config, run, resume, sitting):
        raise UserError("holds no data set")

    monkeypatch.setitem(sys.modules, "moonseg_jax.train", types.SimpleNamespace(run_sft=run_sft))
    monkeypatch.setattr("moonseg_jax.train", types.SimpleNamespace(run_sft=run_sft), raising=False)
    for _ in range(2):
        code, _, error = moonseg("train", "sft", "--config", CONFIG, "--out", tmp_path / "run")
        assert (code, one_line(error)) == (2, "holds no data set")


@pytest.mark.parametrize("word", ["--log-every=0", "--steps=0", "--images-per-batch=-1", "--seed=-1"])
def test_a_number_that_leaves_nothing_to_do_is_refused(moonseg, tmp_path, word):
    code, _, error = moonseg("train", "rl", "--config", CONFIG, "--out", tmp_path / "run", word)
    assert code == 2 and "it must" in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("eval", "--scenes", "0"), "--limit must be at least 1, got 0"),
        (("eval", "--refine-batch", "0"), "--refine-batch must be at least 1, got 0"),
        (("quickstart", "--seed", "-1"), "--seed must not be negative, got -1"),
    ],
)
def test_numbers_and_folders_are_checked_before_the_work(moonseg, words, said):
    code, _, error = moonseg(*words)
    assert (code, one_line(error)) == (2, said)


def test_a_bug_is_not_dressed_up_as_bad_input(segmenter, tmp_path):
    def segment(image, phrase, spatial_refs):
        raise ValueError("shapes do not match")

    segmenter(segment)
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match="shapes do not match"):
        cli.main(["segment", str(tmp_path / "a.png"), "red star", "-o", "mask.png"])


def test_quickstart_refuses_no_time(moonseg):
    code, _, error = moonseg("quickstart", "--minutes", "0")
    assert code == 2 and one_line(error) == "--minutes must be greater than 0, got 0.0"


def test_report_names_a_folder_without_a_run(moonseg, tmp_path):
    code, _, error = moonseg("report", tmp_path)
    assert code == 2 and f"{tmp_path} holds no run" in one_line(error)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "sft", "--config", "gs://bucket/x.py"), "--config gs://bucket/x.py: a folder or file of this"),
        (("sweep", "x.py", "--out=gs://bucket/sweep"), "--out gs://bucket/sweep: a folder or file of this machine"),
        (("path", "trace", "gs://bucket/m.png", "-o", "p.svg"), "path gs://bucket/m.png: a folder or file of this"),
        (("train", "sft", "--config", "x.py", "--out=s3://bucket/run"), "--out s3://bucket/run: of buckets only gs://"),
    ],
)
def test_a_bucket_is_not_taken_for_a_folder_of_that_name(moonseg, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    code, _, error = moonseg(*words)
    assert code == 2
    assert told in one_line(error)
    assert list(tmp_path.iterdir()) == []
