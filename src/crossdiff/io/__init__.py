"""Artifacts and manifests, tables, locks, progress, other tools' checkpoints."""
