"""Every error this project raises on purpose.

L2dmError
├── BadInput            something a user gave us; `problems` lists all of it at once
│   ├── BadUpload         pictures, concept.json, concept name, class noun
│   ├── BadSpec           an unknown key or a value out of range
│   ├── BadSettings       l2dm.toml: the same, or a place where runs cannot execute
│   ├── BadPrompt         an unknown <concept>, too long to read, or written for another tool
│   ├── BadBase           base model missing, of another architecture, or pickled
│   ├── UnknownLine       a line, version or alias that does not exist
│   └── BadStore          an object store that does not answer or cannot write on condition
│       └── ClosedStore     one that is missing or closed to us: asking again does not help
├── BadDoor             a folder between steps is missing, torn, changed or of another kind
├── DoesNotFit          adapter and base disagree: names, shapes, dtypes, fingerprint, not finite
├── NothingAttached     a pattern that should match modules matched none
├── NothingLearned      a trainable tensor that no gradient reaches, or one that is not finite
├── WrongShape          a tensor with other axes than the function is written for
├── StaleParent         the champion moved since this task was begun
├── LineBusy            another learner holds this line
├── LostLease           this run's lease expired, or another run took the line over
├── TrackingFailed      MLflow does not answer, or refused
│   └── FilesGone         it answers, and has no files of a version any more
├── ObjectError         something about one object of an object store
│   ├── BadKey            a key that leads out of the store, or that cannot be one
│   ├── NoSuchObject      nothing is stored under the key
│   ├── Conflict          a conditional write came second
│   ├── Corrupt           other bytes than those that were written
│   └── TooLarge          more bytes than the reader takes
├── PlatformError       Kubeflow Pipelines or a container engine did not answer, or refused
├── BrokenPackage       an installed package declares a method and cannot be imported
└── StepFailed          a pipeline step ended without its outputs

A message says what was expected, what was found, where, and what to do.
"""

import builtins
import errno
import os
import shutil
from collections.abc import Sequence


class L2dmError(Exception):
    """Anything this project refuses to do."""


class BadInput(L2dmError):
    """Input from a user; every problem is listed, nothing was written."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__(
            self.problems[0]
            if len(self.problems) == 1
            else "".join(f"\n  - {problem}" for problem in self.problems)
        )


class BadUpload(BadInput):
    """Pictures, concept.json, concept name or class noun."""


class BadSpec(BadInput):
    """An unknown key or a value out of range."""


class BadSettings(BadInput):
    """A key or a value of l2dm.toml, or a place where runs cannot execute as it says."""


class BadPrompt(BadInput):
    """A prompt that names an unknown concept, is too long, or is written for another tool."""


class BadBase(BadInput):
    """A base model that is missing, of another architecture, or holds pickled weights."""


class UnknownLine(BadInput):
    """A line, version or alias that does not exist."""


class BadStore(BadInput):
    """An object store that does not answer, cannot write on condition, or is a ClosedStore."""


class ClosedStore(BadStore):
    """An object store that is missing or closed to us, so that asking again does not help."""


class BadDoor(L2dmError):
    """A folder between steps is missing, torn, changed or of another kind."""


class DoesNotFit(L2dmError):
    """An adapter and a base model disagree."""


class NothingAttached(L2dmError):
    """A pattern that should match modules matched none."""


class NothingLearned(L2dmError):
    """A trainable tensor that no gradient reaches, or one that is not finite."""


class WrongShape(L2dmError):
    """A tensor with other axes than the function is written for."""


class StaleParent(L2dmError):
    """The champion moved since the task was begun."""


class LineBusy(L2dmError):
    """Another learner holds this line."""


class LostLease(L2dmError):
    """This run's lease expired, or another run took the line over."""


class PlatformError(L2dmError):
    """Kubeflow Pipelines or a container engine did not answer, or refused what it was asked."""


class BrokenPackage(L2dmError):
    """An installed package that declares a method cannot be imported."""


class StepFailed(L2dmError):
    """A pipeline step ended without its outputs."""


class TrackingFailed(L2dmError):
    """MLflow, tracking or registry, does not answer or refused what we asked.

    refused: it answered, and will answer the same to the same request.
    """

    refused = False


class FilesGone(TrackingFailed):
    """Files of a version of which the store says that they are not there: no error, no time-out."""


class ObjectError(L2dmError):
    """Something about one object of an object store."""


class BadKey(ObjectError):
    """A key that leads out of the store, or that cannot be one."""


class NoSuchObject(ObjectError):
    """Nothing is stored under the key."""


class Conflict(ObjectError):
    """A conditional write came second."""


class Corrupt(ObjectError):
    """Other bytes than those that were written."""


class TooLarge(ObjectError):
    """More bytes than the reader takes."""


_HOUSE = (
    *(BadStore, UnknownLine, BadDoor, TrackingFailed, ObjectError, PlatformError, BrokenPackage),
    *(OSError, MemoryError),
)
_FOREIGN = {"NotStarted", "MlflowException", "OperationalError", "DatabaseError"}


def is_of_the_house(kind: str) -> bool:
    """Whether an error of this class name is trouble of disks, servers or stored files.

    No upload is to blame for it: what waits goes on waiting.
    """
    found = globals().get(kind) or getattr(builtins, kind, None)
    return kind in _FOREIGN or (isinstance(found, type) and issubclass(found, _HOUSE))


_MISSING = "it is not there: bring it back, mount the disk that holds it, or name another path"
_CLOSED = "let this user read and write there, or name another path"
_ROOM = "free some space there"
_SILENT = "the disk or the mount does not answer: look at it, and at the network"
_ADVICE = {
    errno.ENOENT: _MISSING,
    errno.ENODEV: _MISSING,
    errno.ENXIO: _MISSING,
    errno.ENOTDIR: "a part of the path is a file: name another path, or move that file away",
    errno.EISDIR: "it is a folder where a file is expected: move it away, or name another path",
    errno.EEXIST: "something else has that name: move it away, or name another path",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: "it is mounted to be read only: mount it to be written, or name another path",
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "the disk takes no file so large: name a path on another one",
    errno.ENAMETOOLONG: "a name in it is too long for the disk: shorten it",
    errno.ELOOP: "its links lead in a circle: mend them, or name another path",
    errno.EMFILE: "too many files are open: raise the limit (ulimit -n)",
    errno.ENFILE: "too many files are open on this machine: close other programs",
    errno.ENOMEM: "the machine has no memory left: close other programs",
    errno.EIO: _SILENT,
    errno.ESTALE: _SILENT,
    errno.ETIMEDOUT: _SILENT,
    errno.ENOTCONN: _SILENT,
    errno.EHOSTDOWN: _SILENT,
    errno.EHOSTUNREACH: _SILENT,
}


def words(error: BaseException) -> str:
    """What an error says for people: one of the operating system in words, any other its own."""
    return system_words(error) if isinstance(error, OSError) else str(error)


def system_words(error: OSError) -> str:
    """What the operating system refused, where, and what to do about that."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        (source, to, why), *others = error.args[0]  # of copying a folder: one for each file
        more = f" (and {len(others)} more)" if others else ""
        return f"{why}, copying {source} to {to}{more}"
    if error.errno is None:
        return str(error) or repr(error)
    files = (error.filename, error.filename2)
    names = [os.fsdecode(one) if isinstance(one, str | bytes) else one for one in files]
    names = [name for name in names if name is not None]
    where = f" at {' and '.join(map(str, names))}" if names else ""
    advice = _ADVICE.get(error.errno, "")
    return f"{error.strerror or error}{where}{': ' if advice else ''}{advice}"
