"""Which modules of aitrail, and which distributions, a function imports: read from the source, nothing is run.

What a function imports when it runs is needed as well, unless the target says that it never runs there (``unused``).
"""

import ast
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from msgspec import Struct, field

from aitrail.errors import ConfigError

PACKAGE = Path(__file__).resolve().parents[2]
# Import name -> distribution; the longest name that fits counts.
DISTRIBUTIONS: Mapping[str, str] = {
    "azure.core": "azure-core",
    "azure.data.tables": "azure-data-tables",
    "azure.eventhub": "azure-eventhub",
    "azure.eventhub.extensions": "azure-eventhub-checkpointstoreblob",
    "azure.functions": "azure-functions",
    "azure.identity": "azure-identity",
    "azure.monitor.ingestion": "azure-monitor-ingestion",
    "azure.monitor.query": "azure-monitor-query",
    "azure.storage.blob": "azure-storage-blob",
    "boto3": "boto3",
    "botocore": "boto3",
    "click": "click",
    "confluent_kafka": "confluent-kafka",
    "cryptography": "cryptography",
    "duckdb": "duckdb",
    "elastic_transport": "elasticsearch",
    "elasticsearch": "elasticsearch",
    "filelock": "filelock",
    "google.protobuf": "opentelemetry-proto",
    "httpcore": "httpx",
    "httpx": "httpx",
    "hyperscan": "hyperscan",
    "isal": "isal",
    "msgspec": "msgspec",
    "numpy": "numpy",
    "onnxruntime": "onnxruntime",
    "opentelemetry.proto": "opentelemetry-proto",
    "pytz": "pytz",
    "re2": "google-re2",
    "rich": "rich",
    "splunklib": "splunk-sdk",
    "stdnum": "python-stdnum",
    "structlog": "structlog",
    "tokenizers": "tokenizers",
    "urllib3": "boto3",
    "zstandard": "zstandard",
}
# Modules that import by name what somebody chooses: what is needed of it whatever is chosen.
BY_NAME: Mapping[str, tuple[str, ...]] = {
    "aitrail.classify.checks": ("stdnum",),
    "aitrail.registry": (),  # sources and destinations: the caller's
    "aitrail.runtime.judging": (),  # scorers: FEATURES
    "aitrail.secrets": (),  # schemes: the target's
}
# Optional imports by what asks for them.
FEATURES: Mapping[str, tuple[str, ...]] = {
    "model": ("aitrail.classify.scorer_model",),
    "azure-prompt-shields": ("aitrail.classify.scorer_azure",),
    "bedrock-guardrail": ("aitrail.classify.scorer_bedrock",),
}


class Closure(Struct):
    """What is needed.

    Attributes:
        modules: of aitrail, with their packages.
        imports: modules of others, by the distribution that has them.
    """

    modules: set[str] = field(default_factory=set)
    imports: dict[str, set[str]] = field(default_factory=dict)


def closure(roots: Iterable[str], unused: Collection[str] = ()) -> Closure:
    """Everything that importing ``roots`` imports, and what these import when they are used.

    Args:
        roots: modules of aitrail.
        unused: modules of aitrail whose functions that import something of others are never called.

    Raises:
        ConfigError: a module of nobody that is known here.
    """
    found = Closure()
    todo = list(roots)
    while todo:
        module = todo.pop()
        path = path_of(module)
        if module in found.modules or path is None:
            continue
        found.modules.add(module)
        todo.append(module.rpartition(".")[0])
        for name, deferred in (*_imports(module, path), *((one, False) for one in BY_NAME.get(module, ()))):
            top = name.partition(".")[0]
            if top == "aitrail":
                todo.append(name)
            elif top not in sys.stdlib_module_names and not (deferred and module in unused):
                found.imports.setdefault(distribution_of(name, module), set()).add(name)
    return found


def path_of(module: str) -> Path | None:
    """The file of a module of aitrail; None when it is none (a name in a module, for instance)."""
    base = PACKAGE.parent.joinpath(*module.split(".")) if module else PACKAGE.parent / "-"
    for candidate in (base / "__init__.py", base.with_suffix(".py")):
        if candidate.is_file():
            return candidate
    return None


def distribution_of(name: str, where: str) -> str:
    """Who has a module; raises ``ConfigError`` that names what to add."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        found = DISTRIBUTIONS.get(".".join(parts[:length]))
        if found:
            return found
    hint = "add it to DISTRIBUTIONS in aitrail/runtime/packaging/closure.py"
    raise ConfigError(f"no distribution is known that has {name}", where=where, hint=hint)


@lru_cache(maxsize=1_024)
def _imports(module: str, path: Path) -> tuple[tuple[str, bool], ...]:
    """Names that a module imports, and whether only when a function runs."""
    return tuple(_found(module, path))


def _found(module: str, path: Path) -> Iterator[tuple[str, bool]]:
    for node, deferred in _statements(ast.parse(path.read_bytes()), deferred=False):
        if isinstance(node, ast.Call):
            if module in BY_NAME:
                continue
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value, deferred
            else:
                hint = "say what it can be: BY_NAME in aitrail/runtime/packaging/closure.py"
                raise ConfigError(
                    f"line {node.lineno} imports a module by a name made at run time", where=module, hint=hint
                )
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, deferred
        elif node.module and not node.level:
            # `from azure import identity` names a module only with what stands behind "import".
            for alias in node.names:
                yield f"{node.module}.{alias.name}", deferred
            if node.module.partition(".")[0] == "aitrail":
                yield node.module, deferred
        else:
            raise ConfigError("relative imports are not followed", where=module, hint="write the module's whole name")


_Import = ast.Import | ast.ImportFrom | ast.Call


def _statements(node: ast.AST, *, deferred: bool) -> Iterator[tuple[_Import, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, deferred
            continue
        if isinstance(child, ast.Call) and _called(child.func) in ("import_module", "__import__"):
            yield child, deferred
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _statements(child, deferred=deferred or inside)


def _called(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
