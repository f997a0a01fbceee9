"""The fixtures of the examples' tests."""

from examples.conftest import ada, workspace, zoho

__all__ = ["ada", "workspace", "zoho"]
