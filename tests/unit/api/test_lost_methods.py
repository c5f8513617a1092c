"""Jobs of a method that this installation no longer has: an extension was removed."""

from service.api.schemas.job_objects import JobObject
from service.domain.job import Job
from service.operations.jobs import JobView


def test_a_job_of_a_method_that_is_gone_stays_readable() -> None:
    job = Job(
        id="ftjob-1", project_id="proj_1", base="luthier-tiny", training_file="file-1", validation_file=None,
        objective="gone", tuning={"type": "lost", "lost": {"depth": 3}},
        hyperparameters={"n_epochs": 1, "batch_size": 2, "learning_rate_multiplier": 1.0, "warmth": 0.5},
        seed=1, suffix=None, status="succeeded", created_at=1,
    )  # fmt: skip
    shown = JobObject.of(JobView(job), "org-1").model_dump()
    assert shown["method"] == {"type": "gone", "gone": {"hyperparameters": job.hyperparameters}}
    assert shown["tuning"] == {"type": "lost", "lost": {"depth": 3}}
