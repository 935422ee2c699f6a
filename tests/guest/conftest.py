"""Shared by the guest's tests: images, built once."""

from __future__ import annotations

import pytest

from machine import images


@pytest.fixture(scope="session", autouse=True)
def _images_built() -> None:
    images.build()
