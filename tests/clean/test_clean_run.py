"""The whole cleaning over a small data set, with refiners that need no network, and there and back through parquet."""

import dataclasses
import json
import os
import pathlib

import cv2
import numpy as np
import pytest
from echo_refiners import EchoRefiner, upper_half
from pycocotools import mask as coco_mask

from data_pipelines.build import build_shapes
from data_pipelines.refcoco_m.build import build_refcoco_m
from data_pipelines.refer.build import build_refer
from data_pipelines.source import open_split
from moonseg_jax import cli
from moonseg_jax.batch import true_mask
from moonseg_jax.clean import run as run_module
from moonseg_jax.clean.ensemble import Ensemble, EnsembleSettings
from moonseg_jax.clean.parquet_file import FILE as PARQUET
from moonseg_jax.clean.rule import DISAGREE, LEFT, NO_PHRASE, Rule
from moonseg_jax.clean.run import CleanSettings, clean
from moonseg_jax.errors import UserError
from moonseg_jax.shipped import shipped

parquet = pytest.importorskip("pyarrow.parquet", reason="the extra 'parquet' is not installed")
SCENES = 10


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    build_shapes(folder, train=1, val=SCENES, seed=0, level=2, progress=False)
    return folder


@pytest.fixture
def refiners(monkeypatch):
    """Replaces the ensemble's refiners by these."""

    def install(*given):
        monkeypatch.setattr(run_module, "load_ensemble", lambda members, settings, batch: Ensemble(given, settings))
        return given

    return install


def settings_for(data, out, **changed):
    settings = CleanSettings(
        data=data, split="val", out=out, checkpoints=(), policy=None,
        ensemble=EnsembleSettings(starts=1, jitter=0.05, iterations=None, seed=0), ask_policy=False,
        rule=Rule(min_agreement=0.8, min_stay=0.6, min_phrase_iou=0.5), words=None, limit=None, batch=16,
    )  # fmt: skip
    return dataclasses.replace(settings, **changed)


def read_lines(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def pairs_of(source):
    return [
        (example.image_id, example.phrase, coco_mask.decode(example.target).tobytes())
        for number in range(len(source))
        for example in source[number].examples
    ]


def test_kept_masks_and_phrases_come_back_from_the_parquet_file(shapes, tmp_path, refiners):
    refiners(EchoRefiner(), EchoRefiner())
    counts = clean(settings_for(shapes, tmp_path / "out"))
    assert build_refcoco_m(tmp_path / "back", source=tmp_path / "out", partial=True, progress=False).splits == {
        "validation": SCENES
    }
    before, after = open_split(shapes, "val"), open_split(tmp_path / "back", "validation")
    assert sorted(pairs_of(after)) == sorted(pairs_of(before))
    assert counts.kept_phrases == counts.phrases == len(pairs_of(before))
    assert (counts.kept_images, counts.images) == (SCENES, SCENES) and not counts.dropped_instances
    np.testing.assert_array_equal(after[3].examples[0].image, before[3].examples[0].image)
    sheet = cv2.imread(str(tmp_path / "out/contact_sheet.png"))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 1000, "photos are on the sheet"


def test_the_file_holds_what_the_members_drew_in_all_fields_of_the_format(shapes, tmp_path, refiners):
    refiners(EchoRefiner(upper_half), EchoRefiner(upper_half))
    rule = Rule(min_agreement=1.0, min_stay=0.0, min_phrase_iou=0.0)
    clean(settings_for(shapes, tmp_path, rule=rule, limit=2))
    rows = parquet.read_table(tmp_path / PARQUET).to_pylist()
    for number, row in enumerate(rows):
        examples = open_split(shapes, "val")[number].examples
        assert set(row) == {"image", "image_id", "file_name", "samples"} and row["image_id"] == number
        for sample in row["samples"]:
            assert set(sample) == {
                "id", "image_id", "category", "supercategory", "label", "sentences", "bbox", "mask",
            }  # fmt: skip
            encoded = {**sample["mask"], "counts": sample["mask"]["counts"].encode()}
            drawn = {example.phrase: upper_half(true_mask(example)) for example in examples}
            for sentence in sample["sentences"]:
                np.testing.assert_array_equal(coco_mask.decode(encoded), drawn[sentence])
            assert sample["bbox"] == coco_mask.toBbox(encoded).tolist()
            assert sample["id"] in [example.example_id for example in examples]


def test_masks_that_disagree_or_leave_are_dropped_with_reason_and_numbers(shapes, tmp_path, refiners):
    refiners(EchoRefiner(), EchoRefiner(upper_half))
    counts = clean(settings_for(shapes, tmp_path / "apart"))
    assert counts.kept_instances == 0 and set(counts.dropped_instances) == {DISAGREE}
    for line in read_lines(tmp_path / "apart/dropped.jsonl"):
        # Of two members the majority is what both say: the half, which is also all that pair shares.
        half, whole = (
            coco_mask.area({**line[name], "counts": line[name]["counts"].encode()}) for name in ("mask", "annotation")
        )
        assert line["agreement"] == line["least_agreement"] == pytest.approx(half / whole)
    refiners(EchoRefiner(upper_half), EchoRefiner(upper_half))
    rule = Rule(min_agreement=0.8, min_stay=0.95, min_phrase_iou=0.0)
    assert set(clean(settings_for(shapes, tmp_path / "left", rule=rule)).dropped_instances) == {LEFT}
    with pytest.raises(UserError, match="holds no rows"):
        build_refcoco_m(tmp_path / "back", source=tmp_path / "left", partial=True, progress=False)


def test_listed_words_take_phrases_and_then_instances_and_every_count_adds_up(shapes, tmp_path, refiners):
    refiners(EchoRefiner(), EchoRefiner())
    (tmp_path / "words.txt").write_text("Object\nleftmost\nblue\n")
    counts = clean(settings_for(shapes, tmp_path / "out", words=tmp_path / "words.txt"))
    said = [phrase for _, phrase, _ in pairs_of(open_split(shapes, "val"))]
    taken = [phrase for phrase in said if {"object", "leftmost", "blue"} & set(phrase.split())]
    lines = read_lines(tmp_path / "out/dropped.jsonl")
    assert sorted(line["phrase"] for line in lines if line["what"] == "phrase") == sorted(taken) != []
    assert counts.kept_phrases == len(said) - len(taken) == counts.phrases - sum(counts.dropped_phrases.values())
    whole = [line for line in lines if line["what"] == "instance"]
    assert whole and {line["reason"] for line in whole} == {NO_PHRASE}
    assert (
        counts.instances
        == counts.kept_instances + len(whole)
        == counts.kept_instances + counts.dropped_instances[NO_PHRASE]
    )
    assert sum(counts.words.values()) == len(taken)
    kept = read_lines(tmp_path / "out/kept.jsonl")
    assert len(kept) == counts.kept_instances and sum(len(line["phrases"]) for line in kept) == counts.kept_phrases
    summary = json.loads((tmp_path / "out/clean.json").read_text())
    assert summary["counts"]["kept_instances"] == len(kept) and summary["words"]["count"] == 3


def test_a_stopped_cleaning_goes_on_and_another_rule_measures_nothing_again(shapes, tmp_path, refiners):
    whole = refiners(EchoRefiner(), EchoRefiner())
    clean(settings_for(shapes, tmp_path / "whole"))
    refiners(EchoRefiner(), EchoRefiner())
    clean(settings_for(shapes, tmp_path / "parts", limit=8))
    log = tmp_path / "parts/measured.jsonl"
    log.write_text(log.read_text()[:-20], encoding="utf-8")
    again = refiners(EchoRefiner(), EchoRefiner())
    clean(settings_for(shapes, tmp_path / "parts"))
    assert 0 < again[0].asked < whole[0].asked
    for name in ("measured.jsonl", "kept.jsonl", "dropped.jsonl", PARQUET):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    refiners()
    rule = Rule(min_agreement=0.0, min_stay=0.0, min_phrase_iou=0.0)
    clean(settings_for(shapes, tmp_path / "parts", rule=rule))
    ensemble = EnsembleSettings(starts=1, jitter=0.05, iterations=None, seed=7)
    with pytest.raises(UserError, match=r"measured with other settings: ensemble\.seed \(was 0, now 7\)"):
        clean(settings_for(shapes, tmp_path / "parts", ensemble=ensemble))


def test_weights_that_cannot_be_loaded_leave_a_folder_that_can_be_used(shapes, tmp_path, refiners):
    with pytest.raises(UserError, match="holds no refiner weights"):
        clean(settings_for(shapes, tmp_path / "out", checkpoints=(shipped("rl"), shipped("sft"))))
    refiners(EchoRefiner(), EchoRefiner())
    assert clean(settings_for(shapes, tmp_path / "out", limit=1)).images == 1


def test_instances_that_the_policy_could_not_be_asked_for_are_counted(shapes, tmp_path, refiners, monkeypatch):
    class Speechless:
        def compare(self, instances, found):
            return found

    refiners(EchoRefiner(), EchoRefiner())
    monkeypatch.setattr(run_module, "policy_answers", lambda member, ensemble: Speechless())
    counts = clean(settings_for(shapes, tmp_path / "out", ask_policy=True, limit=3))
    assert counts.unanswered == counts.kept_instances == counts.instances > 3


def test_a_folder_that_holds_something_else_is_left_alone(shapes, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no cleaning"):
        clean(settings_for(shapes, tmp_path))


def test_the_command_says_what_became_of_everything(shapes, tmp_path, refiners, capsys):
    refiners(EchoRefiner(), EchoRefiner(upper_half))
    words = ["data", "clean", "--data", str(shapes), "--out", str(tmp_path / "out"), "--limit", "2"]
    assert cli.main([*words, "--min-agreement", "0", "--min-stay", "0"]) == 0
    streams = capsys.readouterr()
    assert "the shipped refiner knows" in streams.err and "phrases are not screened" in streams.err
    said = sum(len(open_split(shapes, "val")[k].examples) for k in (0, 1))
    assert f"{said} of {said} phrases, 2 of 2 images" in streams.out and "dropped" not in streams.out
    assert cli.main([*words, "--starts", "0"]) == 2
    assert "--starts must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.skipif("MOONSEG_REAL_DATA" not in os.environ, reason="MOONSEG_REAL_DATA names no folder of real data")
def test_photos_keep_their_files_and_sentences(tmp_path, refiners):
    refiners(EchoRefiner(), EchoRefiner())
    data = pathlib.Path(os.environ["MOONSEG_REAL_DATA"])
    build_refer(
        "refcocog", tmp_path / "refs", source=data / "refer/refcocog", images=data / "coco/images", split_by="umd",
        partial=True, progress=False,
    )  # fmt: skip
    clean(settings_for(tmp_path / "refs", tmp_path / "out"))
    build_refcoco_m(tmp_path / "back", source=tmp_path / "out", partial=True, progress=False)
    before, after = open_split(tmp_path / "refs", "val"), open_split(tmp_path / "back", "validation")
    assert pairs_of(after) and sorted(pairs_of(after)) == sorted(pairs_of(before))
    assert [after.image_file(k) for k in range(2)] == [before.image_file(k) for k in range(2)]
    assert (
        before.image_file(0) == next((data / "coco/images").glob(f"*{before[0].examples[0].image_id}.jpg")).read_bytes()
    )
