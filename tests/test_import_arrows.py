"""Imports point one way. A module that is in no row of the table fails: place it deliberately."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYERS = (
    {
        "errors",
        "bucket_errors",
        "storage",
        "config",
        "types",
        "axes",
        "augmentation_config",
        "mesh_config",
        "placement_config",
        "engines",
        "partition",
        "platforms",
        "images",
        "still_image",
        "spatial_refs",
        "status",
        "shipped",
    },
    {"paths", "model"},
    {"metrics"},
    {"scoring"},
    {"rewards"},
    {"weights"},
    {"convert"},
    {"batch", "policy"},
    {"rollout", "mask_cleaning", "corruption", "pair_keeping", "pairs"},
    {"learner"},
    {
        "processes",
        "stopping",
        "step_trace",
        "sharding",
        "shares",
        "checkpoint",
        "checkpoint_files",
        "team_checkpointer",
        "run_directory",
        "progress",
        "compilation",
        "time_split",
        "loggers",
    },
    {"train_config", "config_file", "loop"},
    {"evaluate", "refine", "refine_memory", "baselines", "rl_programs", "stage_programs"},
    {"gallery"},
    {"placement"},
    {"rl_supply"},
    {"pair_source", "synthetic_pairs", "training_pairs", "crop_features", "refiner_evaluation"},
    {"train", "predict", "segmentation", "phrase_decoder", "streaming", "overlay", "segment_many"},
    {"report", "refiner_evidence", "sweep", "plan", "clean", "bench", "serve"},
    {"judge", "reward_compare", "evaluation", "mask_scoring", "demo"},
    {"quickstart", "ship", "launch", "train_start"},
    {
        "commands_convert",
        "commands_bench",
        "commands_clean",
        "commands_data",
        "commands_demo",
        "commands_path",
        "commands_plan",
        "commands_report",
        "commands_rewards",
        "commands_sweep",
        "commands_evidence",
        "commands_eval",
        "commands_launch",
        "commands_score",
        "commands_segment",
        "commands_serve",
    },
    {"commands"},
    {"cli"},
)
"""Rooms of moonseg_jax from the ground up. A room imports from rows above its own, and from its own row as
long as no circle arises."""

STRANGERS = {("model", "paths"), ("paths", "model")}
"""Rooms of one row that know nothing of each other: (importer, imported)."""

DATA_PIPELINES_MAY_IMPORT = {
    "errors", "bucket_errors", "storage", "config", "augmentation_config", "types", "images", "paths", "batch",
}  # fmt: skip
"""All that data_pipelines sees of moonseg_jax."""

DATA_PIPELINES_SERVES_FROM = 12
"""Rooms of this row and the later ones may import data_pipelines."""

PEER = ("bench", "experiments.pytorch_inference")
"""The one file of experiments that a room imports: what ours is measured against. It imports nothing of ours."""

EXPERIMENTS_MAY_IMPORT = {
    "errors",
    "config",
    "augmentation_config",
    "mesh_config",
    "placement_config",
    "rewards",
    "learner",
    "train_config",
    "shipped",
    "sweep",
}
"""All that a config file sees of moonseg_jax."""

LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}


def imported_modules(path: Path) -> Iterator[tuple[int, str]]:
    """Every import of a file, also those inside functions: (line, dotted name of what is imported)."""
    package = ".".join(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def room_of(name: str) -> str | None:
    """The room a dotted name of moonseg_jax lies in; None for the package itself and what it defines."""
    parts = name.split(".")
    if len(parts) < 2:
        return None
    inside = ROOT / "moonseg_jax" / parts[1]
    return parts[1] if inside.is_dir() or inside.with_suffix(".py").is_file() else None


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def arrows(package: str) -> Iterator[tuple[str, str, str, str]]:
    """(where, room or package of the importer, imported package, imported room or module) of our own imports."""
    for path in files(package):
        relative = path.relative_to(ROOT)
        importer = relative.parts[1].removesuffix(".py") if package == "moonseg_jax" else package
        for line, name in imported_modules(path):
            target = name.split(".")[0]
            if target in ("moonseg_jax", "data_pipelines", "experiments", "tests"):
                room = room_of(name) if target == "moonseg_jax" else ".".join(name.split(".")[1:2])
                if room is not None:
                    yield f"{relative}:{line}", importer, target, room


def wrong_arrows() -> list[str]:
    """The imports of moonseg_jax that point up, or to where they may not."""
    wrong = []
    for where, importer, target, room in arrows("moonseg_jax"):
        if importer == "__init__":
            wrong.append(f"{where}: the package itself imports nothing of its rooms")
        elif target == "moonseg_jax":
            if LEVEL[room] > LEVEL[importer] or (importer, room) in STRANGERS:
                wrong.append(f"{where}: {importer} must not import {room}")
        elif (importer, f"{target}.{room}") == PEER:
            continue
        elif target != "data_pipelines" or LEVEL[importer] < DATA_PIPELINES_SERVES_FROM:
            wrong.append(f"{where}: {importer} must not import {target}")
    return wrong


def test_every_module_has_a_place_in_the_table():
    inside = (ROOT / "moonseg_jax").iterdir()
    rooms = {path.stem for path in inside if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
    assert rooms - LEVEL.keys() == set(), "place these rooms in LAYERS, deliberately"


def test_imports_of_the_package_point_one_way():
    assert wrong_arrows() == []


def test_no_rooms_import_each_other_in_a_circle():
    graph: dict[str, set[str]] = {}
    for _, importer, target, room in arrows("moonseg_jax"):
        if target == "moonseg_jax" and room != importer:
            graph.setdefault(importer, set()).add(room)
    assert set(graphlib.TopologicalSorter(graph).static_order()) <= LEVEL.keys()


@pytest.mark.parametrize(
    ("package", "may_import", "siblings"),
    [
        ("data_pipelines", DATA_PIPELINES_MAY_IMPORT, {"data_pipelines"}),
        ("experiments", EXPERIMENTS_MAY_IMPORT, {"experiments"}),
    ],
)
def test_packages_beside_see_only_what_they_may(package, may_import, siblings):
    wrong = [
        f"{where}: {package} must not import {target}.{room}"
        for where, _, target, room in arrows(package)
        if target not in siblings and not (target == "moonseg_jax" and room in may_import)
    ]
    assert wrong == []


def test_arrows_that_point_up_are_found_inside_functions_and_relative_imports_too(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    for room in ("model", "paths", "learner"):
        (tmp_path / "moonseg_jax" / room).mkdir(parents=True)
    (tmp_path / "moonseg_jax" / "cli.py").touch()
    attention = tmp_path / "moonseg_jax" / "model" / "attention.py"
    attention.write_text(
        "from ..learner import sft\n"
        "from . import moe\n"
        "def late():\n"
        "    import moonseg_jax.cli\n"
        "    from moonseg_jax import paths, __version__\n"
        "import data_pipelines.shapes\n"
    )
    assert sorted(wrong_arrows()) == [
        "moonseg_jax/model/attention.py:1: model must not import learner",
        "moonseg_jax/model/attention.py:4: model must not import cli",
        "moonseg_jax/model/attention.py:5: model must not import paths",
        "moonseg_jax/model/attention.py:6: model must not import data_pipelines",
    ]
