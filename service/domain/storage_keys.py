"""Every room of an installation's storage: which keys there are, and whose object a key is.

    files/<file id>/<position>                  bytes of a file, in segments
    uploads/<upload id>/<part id>               a part on its way to become a file's segment; it keeps its key then
    data/<content>-<random>/train.safetensors   tokenised rows of a file: shared by the jobs of the same content
    data/<content>-<random>/...                 what a check found out about them, and their masks as text
    jobs/<job or import id>/...                 snapshots and samples: private, gone after the job
    adapters/<model name, quoted>/<file name>   artifacts, the manifest last
    adapters/<model name, quoted>/served/...    what engines load of an artifact that they do not serve as it is
    merged/<merge id>/model.zip                 a model merged into its base, for a while
    doctor/<random>                             what `luthierd doctor` writes, reads and deletes
    installation                                says whose store this is

Keys are chosen here and nowhere else; what no room knows is left alone by every sweep. Knows no store.
"""

from typing import Literal
from urllib.parse import quote, unquote

Room = Literal["files", "uploads", "data", "jobs", "adapters", "merged"]
ROOMS: tuple[Room, ...] = ("files", "uploads", "data", "jobs", "adapters", "merged")
INSTALLATION = "installation"
SEGMENT_LIMIT_BYTES = 255  # of one name between two `/`: what file systems take; S3 takes 1024 for the whole key
DOCTOR_PREFIX = "doctor/"
_SAMPLE_SUFFIX = ".json"


def file_key(file_id: str, position: int = 0) -> str:
    """A stretch of a file's bytes."""
    return f"files/{file_id}/{position}"


def upload_prefix(upload_id: str) -> str:
    """What the keys of an upload's parts begin with."""
    return f"uploads/{upload_id}/"


def part_key(upload_id: str, part_id: str) -> str:
    """The bytes of one part of an upload."""
    return upload_prefix(upload_id) + part_id


def job_prefix(job_id: str) -> str:
    """What the keys of everything private to a job begin with."""
    return f"jobs/{job_id}/"


def dataset_key(dataset_id: str) -> str:
    """The tokenised rows of a file, of training or of validation. A key is written once: every id is a new one."""
    return f"data/{dataset_id}/train.safetensors"


def beside_dataset(object_key: str, name: str) -> str:
    """What is stored about the tokenised rows at `object_key`; it goes with them."""
    return dataset_prefix(object_key) + name


def dataset_prefix(object_key: str) -> str:
    """What the keys of tokenised rows and of everything stored about them begin with."""
    return object_key.rpartition("/")[0] + "/"


def snapshot_prefix(job_id: str, attempt: int, step: int, unique: int) -> str:
    """Where the files of one snapshot lie; `unique`, because a key is written once."""
    return f"{job_prefix(job_id)}snapshots/{attempt}-{step}-{unique}/"


def agreement_key(job_id: str, model: str) -> str:
    """The rows that the trainer has scored with the weights of `model`."""
    return f"{job_prefix(job_id)}samples/{quoted(model)}{_SAMPLE_SUFFIX}"


def artifact_prefix(name: str) -> str:
    """Where the artifact of the model `name` lies, ending in `/`. Any name maps to one safe path segment."""
    return f"adapters/{quoted(name)}/"


def merged_key(merge_id: str) -> str:
    """The archive of a model that is merged into its base."""
    return f"merged/{merge_id}/model.zip"


def doctor_key(unique: str) -> str:
    """An object that is removed again at once."""
    return f"{DOCTOR_PREFIX}{unique}"


def quoted(name: str) -> str:
    """A model's name as one path segment, in storage and on disks."""
    return quote(name, safe="")


def room_beside(name: str) -> int:
    """How many letters or digits more the name of a storable model may have; the longest key is its agreement's."""
    return SEGMENT_LIMIT_BYTES - len(quoted(name)) - len(_SAMPLE_SUFFIX)


def fits(name: str) -> bool:
    """Whether a model of that name can be stored."""
    return room_beside(name) >= 0


def owner_of(key: str) -> tuple[Room, str] | None:
    """The room, and the id (a model's name for an artifact) of what the object belongs to; None outside all rooms."""
    room, _, rest = key.partition("/")
    for known in ROOMS:
        if room == known:
            return known, unquote(rest.partition("/")[0])
    return None
