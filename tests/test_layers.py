"""`scripts/check_layers.py`, which `make lint` runs, rejects each violation of the layers."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "scripts" / "check_layers.py"


@pytest.fixture(scope="module")
def check_layers():
    spec = importlib.util.spec_from_file_location("check_layers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(check_layers, folder, files):
    """Return the violations in a source tree of these files."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return list(check_layers.violations(folder))


def test_the_sources_have_no_violation(check_layers):
    """The sources of the library keep the layers."""
    assert list(check_layers.violations(ROOT / "src")) == []


@pytest.mark.parametrize(
    ("files", "violation"),
    [
        ({"store/lease.rs": "// As SQLite does it."}, "'SQLite' does not belong into src/store"),
        ({"store/lease.rs": "matches!(place, Place::File(_))"}, "'Place::File' does not belong into src/store"),
        ({"store/lease.rs": "use pyo3::prelude::*;"}, "'pyo3' does not belong into src/store"),
        ({"backends/list.rs": "use pyo3::prelude::*;"}, "'pyo3' does not belong into src/backends"),
        ({"domain/id.rs": 'const LAST: &str = "SELECT last_id";'}, "'SELECT ' does not belong into src/domain"),
        ({"domain/id.rs": "let now = SystemTime::now();"}, "'SystemTime' does not belong into src/domain"),
        (
            {"store/mod.rs": "use crate::python::stores;", "python/stores.rs": ""},
            "src/store/mod.rs: imports src/python/stores.rs, which is in a higher layer",
        ),
        (
            {"domain/id.rs": "fn f() { crate::store::find(); }", "store/mod.rs": ""},
            "src/domain/id.rs: imports src/store/mod.rs, which is in a higher layer",
        ),
        (
            {"store/a.rs": "use super::transfer::b::B;", "store/transfer/b.rs": "use crate::store::{c::C, a::A};"},
            "import cycle between folders: ",
        ),
        (
            {"store/a.rs": "use super::b::{self, B};", "store/b.rs": "use super::a;"},
            "import cycle between files: ",
        ),
        (
            {"store/a.rs": "pub(super) struct Turn;", "domain/b.rs": "enum Turn {}"},
            "the type name Turn has two meanings: domain/b.rs, store/a.rs",
        ),
    ],
)
def test_each_violation_is_rejected(check_layers, tmp_path, files, violation):
    """A forbidden word, an import of a higher layer, an import cycle and a name with two meanings are violations."""
    assert any(violation in line for line in found(check_layers, tmp_path, files))


def test_unit_tests_and_lower_layers_are_free(check_layers, tmp_path):
    """A unit test may name what its layer must not. A layer may import the layers below it."""
    files = {
        "store/a.rs": "use crate::domain::id;\n\n#[cfg(test)]\nmod tests {\n    use rusqlite::Connection;\n}\n",
        "domain/id.rs": "pub struct Id;",
    }
    assert found(check_layers, tmp_path, files) == []
