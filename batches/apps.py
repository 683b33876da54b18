"""The application's registration with Django."""

from django.apps import AppConfig


class BatchesConfig(AppConfig):
    """Batches of tasks, and everything that happens to them."""

    name = "batches"
    verbose_name = "Evaluation"

    def ready(self) -> None:
        from batches import checks  # noqa: F401 - registers itself, needs the app registry
