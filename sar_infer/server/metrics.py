"""The metrics for Prometheus; class names never become labels, and of the names of banks few."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Literal, get_args

import prometheus_client as prometheus

prometheus.disable_created_metrics()  # type: ignore[no-untyped-call]  # they are time stamps of every counter, of no use here

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64)
_SCORES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
_SHOWN = 16
"""Banks with a label of their own."""
Cause = Literal["time", "crash", "idle"]
"""The reasons for which worker processes end."""


class Metrics:
    """The metrics of one server, in a registry of their own.

    Counters start at 0 for all known labels, or a rate would not see the first event.

    Args:
        reasons: What requests may be rejected for.
    """

    def __init__(self, reasons: Iterable[str] = ()) -> None:
        registry = self.registry = prometheus.CollectorRegistry()
        counter = functools.partial(prometheus.Counter, registry=registry)
        gauge = functools.partial(prometheus.Gauge, registry=registry)
        histogram = functools.partial(prometheus.Histogram, registry=registry, buckets=_SECONDS)
        self.requests = counter("sar_requests", "Requests answered.", ["route", "code"])
        self.seconds = histogram("sar_request_seconds", "From the first byte to the answer.", ["route"])
        self.phases = histogram("sar_phase_seconds", "Time of an image in each phase.", ["phase"])
        self.batches = histogram("sar_batch_size", "Images that a worker took together.", buckets=_IMAGES)
        self.images = counter("sar_images", "Images answered.")
        self.rejected = counter("sar_rejected", "Refused or dropped, by reason.", ["reason"])
        self.inside = gauge("sar_queue_depth", "Images being decoded, waiting or running.")
        self.top_score = histogram("sar_top_score", "Score of the best class of each image.", buckets=_SCORES)
        self.judged = counter("sar_judged", "Images compared with the threshold for unknown, asked for or not.")
        self.unknown = counter("sar_unknown", "Of these, images above the threshold.")
        self.workers = gauge("sar_workers", "Worker processes that are ready.")
        self.deaths = counter("sar_worker_deaths", "Worker processes that ended, by reason.", ["reason"])
        self.names = counter("sar_names_embedded", "Class names given to the name encoder.")
        self.sets = counter("sar_class_sets", "Class sets requested.", ["cache"])
        self.classes = gauge("sar_bank_classes", "Classes in the bank.", ["origin"])
        self.open_banks = gauge("sar_open_banks", "Banks of the folder of --banks that are in memory.")
        self.by_bank = counter("sar_bank_requests", "Requests by bank: those asked most, and other.", ["bank"])
        self._asked: dict[str, int] = {}
        self._shown: set[str] = set()
        self.reloads = counter("sar_reloads", "Bundle reloads.", ["outcome"])
        self.bank_usable = gauge("sar_bank_usable", "0 if the bank file cannot be read and older classes answer.")
        self.ready = gauge("sar_ready", "1 if the last self-test of the model passed.")
        self.provider = gauge("sar_execution_provider", "The execution provider in use.", ["requested", "actual"])
        self.model = prometheus.Info("sar_model", "The bundle that answers.", registry=registry)
        prometheus.ProcessCollector(registry=registry)  # memory, CPU and descriptors of the server, without its workers
        for labelled, labels in (
            (self.rejected, reasons),
            (self.deaths, get_args(Cause)),
            (self.reloads, ("done", "refused")),
            (self.sets, ("hit", "miss")),
        ):
            for label in labels:
                labelled.labels(label)

    def asked(self, bank: str) -> None:
        """Count a request for a bank; those asked most have a label each, which changes hands at twice the count."""
        count = self._asked[bank] = self._asked.get(bank, 0) + 1
        if bank not in self._shown:
            if len(self._shown) < _SHOWN:
                self._shown.add(bank)
            elif count > 2 * self._asked[least := min(self._shown, key=self._asked.__getitem__)]:
                self._shown ^= {least, bank}
                self.by_bank.remove(least)
        self.by_bank.labels(bank if bank in self._shown else "other").inc()
