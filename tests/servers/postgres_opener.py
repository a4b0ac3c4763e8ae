"""`open_backend` with libpq loaded: where fifty processes are forked from one, once is enough."""

from __future__ import annotations

import singleton_run_postgres.backend
from singleton_run_postgres import open_backend

__all__ = ["open_backend", "singleton_run_postgres"]
