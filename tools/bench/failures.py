"""Why a benchmark has no figures."""


class CannotMeasure(Exception):
    """What is to be measured does not start, does not answer, or does not change."""
