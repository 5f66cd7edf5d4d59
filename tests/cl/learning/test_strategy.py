"""What a model remembers of itself."""

from __future__ import annotations

from cl import Model


class Counter:
    """Counts how often its method is called."""

    def __init__(self) -> None:
        self.calls = 0

    def tasks(self, model: Model) -> int:
        self.calls += 1
        return len(model.tasks)


def test_what_follows_from_a_model_is_made_once_for_each_model_and_each_who_asks() -> None:
    first, second, model = Counter(), Counter(), Model()
    assert [model.once(first.tasks), model.once(first.tasks), first.calls] == [0, 0, 1]
    model.once(second.tasks)
    assert second.calls == 1
    model.with_entries({}).once(first.tasks)
    assert first.calls == 2 and model == Model()
