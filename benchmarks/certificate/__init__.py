"""How often the certificate is wrong: honest backends called different, and planted faults called the same.

``python -m benchmarks.certificate`` (``make certificate``) runs both and writes ``certificate.json`` and
``certificate-honest.jsonl`` in ``benchmarks/results/``, from which ``docs/certificate.md`` has its figures.
"""
