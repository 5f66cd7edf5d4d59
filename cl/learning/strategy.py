"""What a strategy is, and the life of a run.

For each task of the stream, in order, the engine calls

    strategy.learn(task, model)      -> the entries that this task adds to the model, or replaces
    strategy.scores(model, samples)  -> logits over model.classes for every test shard seen so far

and after the last one, once,

    strategy.figures(models, tasks)  -> the method's own figures, beside those that every run records

Where the stream goes on at test time, each segment then comes, in order of arrival, without labels or names, to

    strategy.adapt(model, segment)   -> the scores of its images, and the entries that the model has from now on

Scores are final when they are returned: a segment's batches are scored in turn, each before it is learnt from.

A model is an immutable mapping from stable names to built components, plus the ordered table of tasks. Nothing else is
remembered between tasks: a strategy object holds hyperparameters only, and everything it makes goes through
`self.component`, whose builds are pure module-level functions. Whatever is in the store already is not built again.

Past tasks are in `model.tasks` with their ids and classes. Their images are sealed unless the strategy declares
`rehearsal`: reading a sealed shard raises UndeclaredRead.

A user's model is the strategy run on the user's view of the stream, mostly from the store. A strategy need know nothing
of it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic

from typing_extensions import TypeVar

from cl import registry
from cl.components.builder import Builder
from cl.components.handles import Handle, Part, Read, durable
from cl.data.policy import Atom
from cl.data.samples import Samples
from cl.data.stream import Task
from cl.data.veil import Veiled
from cl.errors import BadInput, UndeclaredRead, shown
from cl.home.store import Tensors
from cl.learning.features import adapter_features, backbone_features, features_together
from cl.learning.hyper import hyperparameters
from cl.numerics import Numerics

Made = TypeVar("Made")
H = TypeVar("H", default=Any)  # a strategy's hyperparameters; plain `Strategy` is one of any


@hyperparameters
class NoHyper:
    """A strategy without hyperparameters."""


@dataclass(frozen=True)
class PastTask:
    """A task that was learnt: its id and classes, and its images if the strategy rehearses."""

    id: str
    classes: tuple[str, ...]
    domain: str | None
    _train: Samples | None = field(default=None, repr=False)

    @property
    def train(self) -> Samples:
        """The task's training shard. Raises UndeclaredRead unless the strategy declares `rehearsal`."""
        if self._train is None:
            raise UndeclaredRead(
                f"images of past task '{self.id}' are sealed; set rehearsal = True on the strategy to read them"
            )
        return self._train


@dataclass(frozen=True)
class Model:
    """Entries by name, and the tasks learnt so far, oldest first."""

    entries: Mapping[str, Handle] = field(default_factory=dict)
    tasks: tuple[PastTask, ...] = ()
    _made: dict[Callable[[Model], Any], Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, make: Callable[[Model], Made]) -> Made:
        """`make(self)`, made when it is first asked for and kept as long as this model: for what many queries need and
        follows from the model alone. make: a function or method; another object's method is another one."""
        if make not in self._made:
            self._made[make] = make(self)
        made: Made = self._made[make]
        return made

    def __getitem__(self, name: str) -> Handle:
        return self.entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their first task: the columns of every score."""
        return tuple(dict.fromkeys(name for task in self.tasks for name in task.classes))

    @property
    def parts(self) -> Iterator[tuple[str, Part]]:
        """The durable parts by manifest name."""
        for name, handle in self.entries.items():
            for part in durable(handle):
                yield (f"{name}/{part.name}" if part.name else name), part

    def with_entries(self, entries: Mapping[str, Handle]) -> Model:
        """The model with these entries added or replaced."""
        return replace(self, entries={**self.entries, **entries})

    def after(self, task: Task, entries: Mapping[str, Handle], rehearsal: bool) -> Model:
        """The model once `task` has been learnt."""
        past = PastTask(task.id, task.classes, task.domain, task.train if rehearsal else None)
        return replace(self, entries={**self.entries, **entries}, tasks=(*self.tasks, past))


@dataclass(frozen=True)
class Adaptation:
    """What a segment came to. scores: one tensor `scores` `(n, classes)`, rows as `segment.samples`, columns as
    `model.classes`. entries: what the model holds from now on. evidence: tensors `(batches,)` by name, in order of
    arrival; `updated` (1 where something was learnt from the batch) and `passes` (images run, a backward pass counting
    as two) have a meaning for every method."""

    scores: Part | Handle
    entries: Mapping[str, Handle] = field(default_factory=dict)
    evidence: Part | None = None


class Strategy(ABC, Generic[H]):
    """Base class. Subclasses name their hyperparameters (`Strategy[MyHyper]`), set the class attributes and implement
    `learn` and `scores`.

    title, paper: what `list` and `describe` show. Hyper: a dataclass made with `hyperparameters`. presets: named
    sets of hyperparameter values. preset_notes: what a preset stands for, in a line.
    """

    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    Hyper: ClassVar[type] = NoHyper
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    preset_notes: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        hyper: H,
        builder: Builder,
        readable: Callable[[Atom], bool] = lambda atom: True,
        admits: Callable[[Task], Task] = lambda task: task,
    ) -> None:
        """readable: whether whoever asks may read samples so labelled. admits: what of a task may be learnt."""
        self.hyper = hyper
        self.readable = readable
        self._admits = admits
        self._builder = builder
        self._decisions: list[Part] = []

    @abstractmethod
    def learn(self, task: Task, model: Model) -> Mapping[str, Handle]:
        """The entries that `task` adds or replaces. `model` does not hold `task` yet."""

    @abstractmethod
    def scores(self, model: Model, samples: Samples) -> Handle:
        """A component with one tensor `scores` `(n, classes)`: one row a sample, columns as `model.classes`."""

    def figures(self, models: Sequence[Model], tasks: Sequence[Task]) -> Mapping[str, Handle]:
        """The method's own figures: block name -> component of role evidence, whose tensors become lists in the run's
        figures (NaN as null).

        models: the model after each task. tasks: those of the stream, for their test shards.
        """
        return {}

    def adapt(self, model: Model, segment: Veiled) -> Adaptation:
        """The scores of a segment's images, each batch scored before it is learnt from, and what was learnt. A method
        without test-time adaptation scores with the model as it is."""
        return Adaptation(self.scores(model, segment.samples))

    @property
    def rehearsal(self) -> bool:
        """Whether images of past tasks may be read. A method that always does sets the attribute `rehearsal = True`."""
        return False

    @property
    def batches_kept(self) -> int | None:
        """A segment is handed to `adapt` in pieces of so many batches, so that a state is kept after each; None for
        whole segments."""
        return None

    @property
    def forgets_segments(self) -> bool:
        """Whether each segment begins with the model as it was before the first one: no continual adaptation."""
        return False

    @classmethod
    def isolates(cls, hyper: Any) -> bool:
        """Whether a user's model is made from the user's view alone. A strategy that says no is given everybody's
        training images in every run and must itself keep to `self.readable`; what it shows users then leaks."""
        return True

    def learns(self, task: Task, remaining: int) -> bool:
        """Whether to learn now, with `remaining` tasks still to come. If not, the task only enters the table."""
        return True

    def extended(self, model: Model, task: Task, remaining: int) -> Model:
        """The model once `task` has been dealt with, `remaining` tasks still to come. Called by the engine.

        Raises BadInput for a task without training images, unless the strategy takes a trained model as `checkpoint`.
        """
        task = self._admits(task)
        if not len(task.train) and not getattr(self.hyper, "checkpoint", ""):
            raise BadInput(
                "the stream has no labelled source split; give it a source, or a model (--set checkpoint=FILE)"
            )
        self.forget_decisions()
        entries = self.learn(task, model) if self.learns(task, remaining) else {}
        self.forget_decisions()
        return model.after(task, entries, self.rehearsal)

    def component(self, name: str, build: Callable[..., Any], *reads: Read, **arguments: Any) -> Handle:
        """The component `name` = `build(*reads, **arguments)`, from the store or built now (see `cl.components`)."""
        return self._builder.component(name, build, *reads, controls=tuple(self._decisions), **arguments)

    def decide(self, part: Part | Handle) -> Tensors:
        """The value of a decision. All that this task builds afterwards has it as a parent."""
        decision = part.sole if isinstance(part, Handle) else part
        self._decisions.append(decision)
        return decision.open()

    @property
    def numerics(self) -> Numerics:
        """Device and threads of what is built."""
        return self._builder.numerics

    def forget_decisions(self) -> None:
        """Called by the engine before each task."""
        self._decisions.clear()

    def require_new_classes(self, task: Task, model: Model) -> None:
        """Raises BadInput if a class of the task was learnt before."""
        again = set(task.classes) & set(model.classes)
        if again:
            name = type(self).__name__.lower()
            raise BadInput(f"{name} needs new classes in every task, but task '{task.id}' has '{min(again)}' again")

    def warn(self, line: str) -> None:
        """Tell whoever started the run, once, in one line."""
        self._builder.warn(line)

    def features(self, samples: Samples, adapter: Part | Handle | None = None, scale: float = 0.0) -> Handle:
        """Frozen features `(n, d)` of a shard, of the backbone or under one bottleneck adapter."""
        if adapter is None:
            return self.component("features", backbone_features, samples.plain)
        return self.component("features", adapter_features, samples.plain, adapter, scale=scale)

    def features_under(self, samples: Samples, adapters: Sequence[Part | Handle], scale: float) -> list[Handle]:
        """`features` of a shard under each of several adapters; those not stored yet share what they have in common."""
        reads = [(samples.plain, adapter) for adapter in adapters]
        controls = tuple(self._decisions)
        self._builder.build_together("features", adapter_features, features_together, reads, controls, scale=scale)
        return [self.features(samples, adapter, scale) for adapter in adapters]


def strategy_of(name: str) -> type[Strategy]:
    """The strategy of a registry name or of `module:Class`. Raises UnknownName or BadInput."""
    known = registry.strategies.knows(name)
    found = registry.strategies.get(name) if known else registry.imported(name, "strategy")
    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise BadInput(f"'{shown(name)}' is no strategy; name a subclass of cl.learning.strategy.Strategy")
    return found
