"""What Prometheus asks for."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """Numbers of one server, with a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "heatmask_requests", "Requests answered.", ["method", "route", "status"],
            registry=self.registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "heatmask_request_seconds", "Time to answer a request.", ["route"],
            registry=self.registry, buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900),
        )  # fmt: skip
        self._jobs = Counter(
            "heatmask_jobs", "Inferences by how they ended.", ["state"], registry=self.registry
        )
        self._now = {
            name: Gauge(f"heatmask_{name}", text, registry=self.registry)
            for name, text in {
                "jobs_queued": "Inferences that wait for their turn.",
                "jobs_running": "Inferences that run.",
                "images": "Images of the data store.",
                "labels_final": "Images with a submitted label.",
                "models_ready": "Models whose weights are loaded.",
            }.items()
        }

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "DELETE") else "other"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def count_job(self, state: str) -> None:
        """Count a job that ended."""
        self._jobs.labels(state).inc()

    def render(self, **now: float) -> bytes:
        """Return all numbers in Prometheus' text format; `now` are those that go up and down."""
        for name, value in now.items():
            self._now[name].set(value)
        return generate_latest(self.registry)
