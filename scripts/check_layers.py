"""Checks the layers of `src`: domain, store, backends, python. Each knows only the layers below it.

It reads the Rust sources as text, without their unit tests, and fails with one line for each violation:

- a word that a layer must not contain (see `FORBIDDEN`);
- an import of a higher layer;
- an import cycle between folders, or between files;
- a type name that is defined twice.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent / "src"
LAYERS = ["domain", "store", "backends", "python"]

# Words that must not occur in the code or the comments of a layer.
FORBIDDEN = {
    "domain": r"pyo3|rusqlite|SystemTime|Instant|std::(?:fs|net|io|env|process|thread)|\b(?:SELECT|INSERT|UPDATE) ",
    "store": r"pyo3|(?i:sqlite|postgres)|crate::backends|Place::File|\bList::new",
    "backends": r"pyo3",
    # A lazily made object can block a forked child for ever (src/python/mod.rs).
    "python": r"rusqlite|intern!\(",
}

TESTS = re.compile(r"^#\[cfg\(test\)\]\n(?:#\[.*\n)*mod .*", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"//[^\n]*")
USE = re.compile(r"\buse\s+([^;]+);")
QUALIFIED = re.compile(r"\b(?:crate|super|self)(?:::\w+)+")
TYPE = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?(?:struct|enum|trait|type) (\w+)", re.MULTILINE)
ASSOCIATED_TYPE = re.compile(r"^\s+type \w+ = ", re.MULTILINE)


def sources(root: Path) -> dict[str, str]:
    """Return the text of each source by its path below `root`, without unit tests."""
    return {
        path.relative_to(root).as_posix(): TESTS.sub("", path.read_text(encoding="utf-8"))
        for path in sorted(root.rglob("*.rs"))
    }


def module_of(path: str) -> list[str]:
    """Return the module path of a file: `store/mod.rs` is `store`."""
    parts = path.removesuffix(".rs").split("/")
    return [part for part in parts if part not in {"mod", "lib"}]


def use_paths(tree: str) -> Iterator[str]:
    """Flatten a use tree: `a::{b, c::{d}}` gives `a::b` and `a::c::d`."""
    tree = tree.strip()
    start = tree.find("{")
    if start < 0:
        yield re.sub(r"\s+as\s+\w+$", "", tree)
        return
    prefix, depth, part = tree[:start], 0, ""
    for character in tree[start + 1 : tree.rindex("}")] + ",":
        if character == "," and depth == 0:
            if part.strip():
                yield from use_paths(prefix + part.strip())
            part = ""
            continue
        depth += {"{": 1, "}": -1}.get(character, 0)
        part += character


def resolve(reference: str, path: str) -> list[str]:
    """Return the absolute module path of a reference that a file makes."""
    parts = reference.split("::")
    base = module_of(path)
    if parts[0] == "crate":
        return parts[1:]
    while parts and parts[0] in {"self", "super"}:
        if parts[0] == "super":
            base = base[:-1]
        parts = parts[1:]
    return base + parts


def imports(texts: dict[str, str]) -> dict[str, set[str]]:
    """Return the files that each file imports. A longer module path wins over its parents."""
    files = {tuple(module_of(path)): path for path in texts}
    graph: dict[str, set[str]] = {}
    for path, text in texts.items():
        code = COMMENT.sub("", text)
        references = [part for use in USE.finditer(code) for part in use_paths(use[1])] + QUALIFIED.findall(code)
        targets = set()
        for reference in references:
            if reference.split("::")[0] not in {"crate", "super", "self"}:
                continue
            module = resolve(reference, path)
            for length in range(len(module), 0, -1):
                target = files.get(tuple(module[:length]))
                if target:
                    targets.add(target)
                    break
        graph[path] = targets - {path}
    return graph


def forbidden_words(texts: dict[str, str]) -> Iterator[str]:
    """Yield a line for each word that its layer must not contain."""
    for path, text in texts.items():
        layer = path.split("/")[0]
        if layer not in FORBIDDEN:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            word = re.search(FORBIDDEN[layer], line)
            if word:
                yield f"src/{path}:{number}: {word[0]!r} does not belong into src/{layer}"


def imports_of_higher_layers(graph: dict[str, set[str]]) -> Iterator[str]:
    """Yield a line for each import of a file in a higher layer."""
    height = {layer: number for number, layer in enumerate(LAYERS)}
    for path, targets in graph.items():
        for target in sorted(targets):
            layers = [height.get(name.split("/")[0]) for name in (path, target)]
            if None not in layers and layers[1] > layers[0]:
                yield f"src/{path}: imports src/{target}, which is in a higher layer"


def cycles(graph: dict[str, set[str]]) -> Iterator[str]:
    """Yield a line if folders import each other in a cycle, and one if files do."""
    folders: dict[str, set[str]] = defaultdict(set)
    for path, targets in graph.items():
        folder = path.rpartition("/")[0]
        folders[folder] |= {target.rpartition("/")[0] for target in targets} - {folder}
    # A `mod.rs` uses its submodules, and they use its types. That is one module, and no cycle.
    files = {path: {target for target in targets if not target.endswith("mod.rs")} for path, targets in graph.items()}
    for kind, edges in (("folders", folders), ("files", files)):
        cycle = find_cycle(edges)
        if cycle:
            yield f"import cycle between {kind}: {' -> '.join(cycle)}"


def find_cycle(edges: dict[str, set[str]]) -> list[str]:
    """Return the nodes of a cycle in a graph, or an empty list."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def names_with_two_meanings(texts: dict[str, str]) -> Iterator[str]:
    """Yield a line for each type name that is defined more than once."""
    defined: dict[str, list[str]] = defaultdict(list)
    for path, text in texts.items():
        for name in set(TYPE.findall(ASSOCIATED_TYPE.sub("", text))):
            defined[name].append(path)
    for name, paths in defined.items():
        if len(paths) > 1:
            yield f"the type name {name} has two meanings: {', '.join(paths)}"


def violations(root: Path) -> Iterator[str]:
    """Yield a line for each violation in the sources below `root`."""
    texts = sources(root)
    graph = imports(texts)
    yield from forbidden_words(texts)
    yield from imports_of_higher_layers(graph)
    yield from cycles(graph)
    yield from names_with_two_meanings(texts)


def main() -> int:
    """Print the violations, and return the exit status."""
    found = list(violations(ROOT))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
