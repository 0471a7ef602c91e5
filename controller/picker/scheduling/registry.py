"""Parts of a profile by the name that a configuration uses for them."""

from collections.abc import Callable, Mapping
from typing import Final

from controller.picker.scheduling.base import Filter, Picker, Scorer, Surroundings
from controller.picker.scheduling.filters.healthy import HealthyFilter
from controller.picker.scheduling.pickers.max_score import MaxScorePicker
from controller.picker.scheduling.scorers.expected_wait import ExpectedWaitScorer

FILTERS: Final[Mapping[str, Callable[[Surroundings], Filter]]] = {
    "healthy-filter": lambda surroundings: HealthyFilter(staleness=surroundings.staleness),
}
SCORERS: Final[Mapping[str, Callable[[Surroundings], Scorer]]] = {
    "expected-wait-scorer": lambda surroundings: ExpectedWaitScorer(staleness=surroundings.staleness),
}
PICKERS: Final[Mapping[str, Callable[[Surroundings], Picker]]] = {
    "max-score-picker": lambda surroundings: MaxScorePicker(rng=surroundings.rng),
}
