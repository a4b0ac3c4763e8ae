"""The backend `k8s-lease` in processes whose parent has imported the official client: half a second each."""

from __future__ import annotations

import kubernetes.config

from singleton_run_k8s import open_backend

__all__ = ["kubernetes", "open_backend"]
