"""The lock without a server: flock(2) on a file, held by front and guard until both are gone."""

from __future__ import annotations

from singleton_run_file.backend import FileBackend, default_directory, open_backend

__all__ = ["FileBackend", "default_directory", "open_backend"]
