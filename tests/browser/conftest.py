"""The stage of the examples' tests, for the browser's."""

from examples.conftest import ada, stage, zoho

__all__ = ["ada", "stage", "zoho"]
