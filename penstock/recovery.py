"""What an operator does by hand where a run rightly refuses to go on by itself."""

from __future__ import annotations

from pathlib import Path

from penstock import checkpoints
from penstock.errors import ConfigError, StoreError
from penstock.journal import Journal, exists
from penstock.runner import AnyPipeline, only_writer, parts

__all__ = ["new_journal"]


def new_journal(pipeline: AnyPipeline) -> Path:
    """Begin an order journal behind the checkpoint, where the one that belongs to it was lost.

    No event is lost by it, and none is learned twice: the checkpoint has its positions. Those that a run
    learned after it are learned once more, in an order that need not be the same, and nothing before it can
    be replayed any more.

    Returns
    -------
    path
        Its directory.

    Raises
    ------
    ConfigError
        If the pipeline has no journal, or no checkpoint.
    StoreError
        If there is a journal, or another run is at work.
    """
    _, source = parts(pipeline)
    path: Path | None = getattr(source, "journal_path", None)
    spec = pipeline.checkpoint
    if path is None or spec is None:
        raise ConfigError("--new-journal: only a pipeline with a checkpoint that reads Kafka has a journal")
    with only_writer(pipeline):
        saved = checkpoints.load(spec.path, config_hash=pipeline.hash(), trust_pickle=spec.trust_pickle)
        if saved is None:
            raise ConfigError("--new-journal: there is no checkpoint, so a run begins a journal by itself")
        if "journal" not in saved.position:
            raise ConfigError(
                f"--new-journal: the checkpoint {spec.path} speaks of no journal: a run begins one by "
                f"itself, or says what is wrong"
            )
        if exists(path):
            raise StoreError(f"--new-journal: there is a journal at {path}: move it away first")
        with Journal(path, first=int(saved.position["journal"]["entry"])) as journal:
            journal.append([])  # the checkpoint may lie within an entry: of this one nothing is left
    return path
