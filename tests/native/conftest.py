"""Everything here needs the compiled library; without a compiler it is skipped."""

from __future__ import annotations

import pytest

from ventris.models.native.build import NativeUnavailable, load_library


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    try:
        load_library()
    except NativeUnavailable as error:
        for item in items:
            if "native" in item.path.parts:
                item.add_marker(pytest.mark.skip(reason=str(error)))
