"""Scenes of a list, read as those of a built data set are."""

from tiny_models import scenes

from moonseg_jax.types import Scene


class ListedScenes:
    """What `data_pipelines.source.SceneSource` is to the pairs, without files."""

    split = "train"

    def __init__(self, count: int = 4, given: tuple[Scene, ...] | None = None):
        self._scenes = scenes(count) if given is None else given

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Scene:
        return self._scenes[index]

    def places(self, example_ids: set[int]) -> dict[int, tuple[int, int]]:
        return {
            example.example_id: (number, position)
            for number, scene in enumerate(self._scenes)
            for position, example in enumerate(scene.examples)
            if example.example_id in example_ids
        }
