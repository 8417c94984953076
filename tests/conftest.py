"""Shared options: ``--update-golden`` rewrites the golden files after a deliberate change."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite tests/golden from what the code gives now")
