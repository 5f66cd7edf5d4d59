"""Our strategies in Avalanche's loop: `train(experience)`, `eval(stream)`, with its metrics, plugins and loggers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cl import Model, Seeds, Strategy, assembled
from strategies.avalanche.objects import avalanche_release, quietly

HIDDEN = -1e4  # the score of a class not learnt yet, where Avalanche wants a column for it
OURS = ("backbone", "presets", "settings", "home", "device", "threads")  # arguments that are not Avalanche's


class _Inside:
    """One of our strategies over the shards of a benchmark, step by step.

    benchmark: of `streams.avalanche.from_avalanche`.
    """

    def __init__(self, benchmark: Any, strategy: Strategy) -> None:
        self.benchmark, self.strategy, self.model = benchmark, strategy, Model()

    def learn(self, number: int) -> None:
        tasks = self.benchmark.tasks
        self.model = self.strategy.extended(self.model, tasks[number], len(tasks) - number - 1)

    def scores(self, stream: str, number: int, columns: int) -> Tensor:
        """Scores `(n, columns)` of an experience, rows and columns as Avalanche has them."""
        shard = self.benchmark.experiences[stream, number]
        row = {sample: place for place, sample in enumerate(shard.samples.ids)}
        column = {name: place for place, name in enumerate(self.model.classes)}
        mine = self.strategy.scores(self.model, shard.samples).open()["scores"][[row[s] for s in shard.order]]
        scores = torch.full((len(mine), columns), HIDDEN)
        for label, name in {**self._labels, **shard.names}.items():
            if name in column and label < columns:
                scores[:, label] = mine[:, column[name]]
        return scores

    @property
    def _labels(self) -> dict[int, str]:
        return {label: name for shard in self.benchmark.experiences.values() for label, name in shard.names.items()}

    @property
    def columns(self) -> int:
        """One more than the highest label of the benchmark."""
        return 1 + max(self._labels)


def avalanche_strategy(strategy: str, benchmark: Any, *, seed: int = 0, **given: Any) -> Any:
    """An Avalanche strategy that learns with one of ours: `train(experience)`, `eval(stream)`.

    benchmark: what `streams.avalanche.from_avalanche` makes of the benchmark; experiences must be of it, in its order.
    given: `backbone`, `presets`, `settings`, `home`, `device`, `threads` as for `cl.run`; all others, such as
    `evaluator`, `plugins`, `eval_every` and `eval_mb_size`, as for Avalanche's own. Its metrics, plugins and loggers
    work; a class not learnt yet scores far below all others. What is built goes to the home's store. Raises
    PalimpsestError with one line.
    """
    avalanche_release()
    from avalanche.training.templates import SupervisedTemplate

    ours = {name: given.pop(name) for name in OURS if name in given}
    inside = _Inside(benchmark, assembled(strategy, seed=seed, **ours))
    device = inside.strategy.numerics.device
    guard = Seeds(f"{seed}|avalanche")

    class Ours(SupervisedTemplate):  # type: ignore[misc]
        """Avalanche's loop, with our learning and our scores in it."""

        def train(self, experiences: Any, eval_streams: Any = None, **more: Any) -> Any:
            with guard.forked("train"), quietly():  # its loaders draw, even those that nobody reads
                return super().train(experiences, [] if eval_streams is None else eval_streams, **more)

        def eval(self, experiences: Any, **more: Any) -> Any:
            with guard.forked("eval"), quietly():
                return super().eval(experiences, **more)

        def _train_exp(self, experience: Any, eval_streams: Any = None, **more: Any) -> None:
            self._before_training_epoch(**more)
            inside.learn(experience.current_experience)
            self._after_training_epoch(**more)

        def _before_eval_exp(self, **more: Any) -> None:
            stream, number = self.experience.origin_stream.name, self.experience.current_experience
            self._rest = inside.scores(stream, number, inside.columns)
            super()._before_eval_exp(**more)

        def forward(self) -> Tensor:
            count = len(self.mb_y)
            mine, self._rest = self._rest[:count], self._rest[count:]
            return mine.to(self.device)

        def model_adaptation(self, model: Any = None) -> Any:
            return self.model if model is None else model

        def make_optimizer(self, **_: Any) -> None: ...

        def check_model_and_optimizer(self, **_: Any) -> None: ...

    with guard.forked("init"), quietly():
        stand_in = nn.Linear(1, 1)  # Avalanche wants a module, and an optimiser of it
        optimizer = torch.optim.SGD(stand_in.parameters(), lr=0.0)
        return Ours(model=stand_in, optimizer=optimizer, train_epochs=1, device=device, **given)
