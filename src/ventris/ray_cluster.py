"""Being on a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray

from ventris.engine.errors import BadInput


@contextmanager
def ray_cluster() -> Iterator[None]:
    """Use the cluster of ``RAY_ADDRESS``, or one on this machine that ends with the block.

    One that this process is on already stays as it is.

    Raises:
        BadInput: if no cluster can be reached or begun.
    """
    began = not ray.is_initialized()
    if began:
        try:
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        except Exception as error:  # Ray's own classes do not cover a cluster that cannot be reached
            raise BadInput(f"no Ray cluster: {str(error).splitlines()[0]}") from error
    try:
        yield
    finally:
        if began:
            ray.shutdown()
