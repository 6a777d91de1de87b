"""Image and README say what the scripts and the command line know."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tpu_setup"
README = (FOLDER / "README.md").read_text()


def test_image_has_its_targets_and_none_runs_as_root():
    stages = re.split(r"^FROM .* AS (\w+)$", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    bodies = dict(zip(stages[::2], stages[1::2]))
    assert set(bodies) == {"base", "cpu", "cuda", "tpu"}
    for target in ("cpu", "cuda", "tpu"):
        assert "\nUSER moonseg\n" in bodies[target]
        extras = {"cpu": "gcs", "cuda": "cuda,gcs", "tpu": "tpu,gcs"}[target]
        assert f"RUN pip install '.[{extras}]'\n" in bodies[target]
    for source in re.findall(r"^COPY (.+) \S+$", bodies["base"], flags=re.MULTILINE):
        assert all((ROOT / part).exists() for part in source.split())


def test_readme_names_every_file_and_no_other():
    files = {path.name for path in FOLDER.iterdir() if path.is_file()} - {"README.md", "Dockerfile.dockerignore"}
    named = set(
        re.findall(
            r"[\w/]+\.(?:sh|sbatch|yaml)|tpu_setup/\w+\.py|preflight\.py|Dockerfile", re.sub(r"https://\S+", "", README)
        )
    )
    assert {Path(name).name for name in named} == files


def test_readme_uses_options_that_the_scripts_know():
    lines = README.replace("\\\n", " ").splitlines()
    shared = (FOLDER / "show_or_run.sh").read_text()
    seen = 0
    for line in lines:
        for name, rest in re.findall(r"tpu_setup/(\w+\.(?:sh|py))([^#\"]*)", line):
            options = set(re.findall(r"--[a-z-]+[a-z]", rest.split(" -- ")[0]))
            if name == "train_or_resume.sh":
                continue
            known = (FOLDER / name).read_text() + ("" if name.endswith(".py") else shared)
            for option in options:
                assert option in known, f"{name} {option}"
                seen += 1
    assert seen > 15
