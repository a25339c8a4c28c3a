"""Which modules are machines, and what a machine may not import: read from the source, nothing is run."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("p2p", "federated", "plugins", "sim")

# a machine is handed the clock, the randomness and the bytes: these would fetch them behind its back
OUTSIDE = frozenset(
    {"asyncio", "concurrent", "multiprocessing", "os", "random", "secrets", "select", "selectors", "signal"}
    | {"socket", "ssl", "subprocess", "threading", "time", "trio"}
)

# Whatever is not listed here is a machine (or pure): the rule of the rooms first, then single files.
IO_FILES = (
    "*/driver.py",  # the one file of a protocol's package that does I/O
    "*/__main__.py",
    "p2p/transport/*.py",
    "p2p/peer.py",
    "p2p/options.py",
    "p2p/overlay.py",
    "p2p/services.py",
    "plugins/adapters/*.py",  # seed the generators of the process, which others draw from
    "federated/cli/*.py",
    "federated/demo/*.py",
    "p2p/dialing/dialer.py",
    "p2p/dialing/lookup.py",
    "p2p/dialing/race.py",
    "p2p/host.py",
    "p2p/identify/service.py",
    "p2p/swarm.py",
    "p2p/upgrade.py",
    "p2p/ping.py",
    "p2p/perf.py",
    "p2p/request_response.py",
    "p2p/scope.py",
    "p2p/encrypted.py",
    "p2p/turns.py",
    "p2p/persistence.py",
    "p2p/data_dir.py",
    "p2p/files.py",
    "p2p/blobs/store.py",
    "p2p/blobs/partial.py",
    "p2p/blobs/fetching.py",
    "p2p/blobs/index.py",
    "p2p/blobs/lane.py",
    "p2p/blobs/serving.py",
    "federated/compute.py",
    "federated/isolation/child.py",
    "federated/isolation/limits.py",
    "federated/isolation/process.py",
    "federated/listeners.py",
    "plugins/listeners/tensorboard.py",
    "federated/local/compute.py",
    "federated/local/link.py",
    "federated/recorder.py",
    "federated/history.py",
    "federated/feed.py",
    "federated/link.py",
    "federated/recomputing.py",
    "federated/storage.py",
    "federated/sums/past.py",
    "federated/service.py",
    "federated/joining.py",
    "federated/directory/members.py",
    "federated/control.py",
    "federated/desk.py",
    "federated/tasks.py",
    "federated/export.py",
    "p2p/yamux/link.py",
    "p2p/yamux/stream.py",
    "p2p/waiter.py",
    "p2p/reading.py",
    "p2p/kad/client.py",
    "p2p/kad/content.py",
    "p2p/kad/refresh.py",
    "p2p/kad/values.py",
    "p2p/gossipsub/introductions.py",
    "p2p/gossipsub/link.py",
    "p2p/gossipsub/reading.py",
    "p2p/gossipsub/subscription.py",
    "p2p/handlers.py",
    "sim/live/*.py",  # whole peers, on trio
    "sim/cli/*.py",
    "sim/engine/*.py",
    "sim/fuzz/search.py",
    "sim/environment.py",
    "sim/run.py",
    "sim/stopwatch.py",
)


def python_files(root: Path) -> list[Path]:
    """Every module of the rooms below `root`, sorted, without the generated ones."""
    return sorted(
        path for room in ROOMS for path in (root / room).rglob("*.py") if not path.stem.endswith("_pb2")
    )


def io_files(root: Path, patterns: Collection[str] = IO_FILES) -> list[Path]:
    """The modules below `root` that may touch the outside: those that one of `patterns` describes."""
    return [
        path
        for path in python_files(root)
        if any(fnmatchcase(path.relative_to(root).as_posix(), pattern) for pattern in patterns)
    ]


def imports_at_load(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of each import that happens when the module is loaded.

    Bodies of functions and of `if TYPE_CHECKING` do not count; classes, `if` and `try` do.
    """
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop(0)
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name) for alias in names)
            case ast.ImportFrom(module=str(module), level=0, names=names):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in names)
            case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=orelse):
                pending.extend(orelse)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                pass
            case _:
                pending.extend(ast.iter_child_nodes(node))


def _load(path: Path) -> Iterator[tuple[int, str]]:
    return imports_at_load(ast.parse(path.read_text(encoding="utf-8"), str(path)))


def _dotted(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module(imported: str, root: Path) -> str:
    """The module that `imported` names or belongs to."""
    path = root.joinpath(*imported.split("."))
    return imported if path.is_dir() or path.with_suffix(".py").is_file() else imported.rpartition(".")[0]


def io_modules(root: Path) -> frozenset[str]:
    """The dotted names of the modules below `root` that do I/O, and of packages that re-export one."""
    found = {_dotted(path, root) for path in io_files(root)}
    packages = [path for path in python_files(root) if path.name == "__init__.py"]
    re_exporting = [path for path in packages if any(_module(name, root) in found for _, name in _load(path))]
    return frozenset(found | {_dotted(path, root) for path in re_exporting})


def outside_imports(path: Path, root: Path, doing_io: Collection[str]) -> list[tuple[int, str]]:
    """The imports of `path` that reach outside, directly or through one of `doing_io`: (line, name)."""
    return [
        (line, name)
        for line, name in _load(path)
        if name.partition(".")[0] in OUTSIDE or _module(name, root) in doing_io
    ]


def machine_violations(root: Path) -> list[str]:
    """One line for each machine below `root` that fetches for itself what it should be handed."""
    doing_io, allowed = io_modules(root), set(io_files(root))
    return [
        f"{path.relative_to(root).as_posix()}:{line} imports {name}"
        for path in python_files(root)
        if path.name != "__init__.py" and path not in allowed
        for line, name in outside_imports(path, root, doing_io)
    ]


def wire_violations(root: Path) -> list[str]:
    """One line for each module other than a wire.py that imports generated protobuf classes."""
    return [
        f"{path.relative_to(root).as_posix()}:{line} imports {name}"
        for path in python_files(root)
        if path.name != "wire.py"
        for line, name in _load(path)
        if any(part.endswith("_pb2") for part in name.split("."))
    ]
