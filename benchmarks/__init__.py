"""Speed, as ratios against peers measured in the same run on the same events.

``python -m benchmarks`` asks every question and writes ``results.md``; each module asks one and can be run
alone: ``python -m benchmarks.prequential --quick``.
"""
