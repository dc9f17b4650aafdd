"""Every record that crosses a step. Read this first, then `steps.py`.

A *door* is a folder between two steps: a payload plus `manifest.json`, which holds one of these
records, the digest of every door it was made from and a sha256 per file (`files/manifest.py`). The
records are plain data: names, numbers and relative file names. Tensors and pictures are files,
which `files/door_files.py` writes and reads.

    Task ─┬─ Prior ──┐
          └─ Memory ─┴─► Adapter ─► Scores ─► Release

Missing numbers are None, never 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Matrix = tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Concept:
    """One thing taught by pictures. `name` is a slug; `class_noun` is what it is, e.g. "dog"."""

    name: str
    class_noun: str

    @property
    def placeholder(self) -> str:
        """The word that means this concept in a prompt."""
        return f"<{self.name}>"

    @property
    def phrase(self) -> str:
        """How a prompt names it: placeholder, then class noun."""
        return f"{self.placeholder} {self.class_noun}"


@dataclass(frozen=True)
class PictureFile:
    """One picture of an upload: file name inside the upload folder and sha256 of its bytes.

    caption: what whoever submitted it says that it shows; "" for nothing.
    """

    name: str
    sha256: str
    caption: str = ""


@dataclass(frozen=True)
class Upload:
    """`concept.json`. It is written last: while it is missing there is no upload.

    replaces: whether it teaches a concept anew that the line knows. Nothing is written where not.
    limits: of `spec.IntakeSpec`, under which it was accepted; whoever learns it asks for no others.
    """

    line: str
    concept: Concept
    pictures: tuple[PictureFile, ...]
    replaces: bool = False
    limits: Mapping[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """The k-th accepted upload of a line.

    Payload: `pictures/00.png` ... cropped to the base's resolution, RGB.
    `prompts[i]` describes `pictures[i]`. `crops[i]` is the square of the uploaded picture that it
    is: left, top, right, bottom, in pixels of that picture upright. `parent` is the digest of the
    parent release, `parent_version` its registry version (0 for the empty release).
    """

    id: str
    line: str
    concept: Concept
    pictures: tuple[str, ...]
    prompts: tuple[str, ...]
    parent: str
    parent_version: int
    base: str
    seed: int
    crops: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Prior:
    """Class pictures that the pretrained base drew.

    Payload: `latents.safetensors` with one key per noun, (n, C, h, w), scaled as the UNet reads
    them; `pictures/<noun index>/000.png` ... . Picture i of every noun was drawn from
    seed `seeds[i]` and prompt `captions[noun][i]`.
    """

    base: str
    nouns: tuple[str, ...]
    captions: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Remembered:
    """Long-term memory of one concept: the prompt of each stored feature."""

    concept: Concept
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Replayed:
    """One short-term picture: who it shows, what drew it, and its Eq. 5 score."""

    concept: str
    prompt: str
    seed: int
    score: float


@dataclass(frozen=True)
class Memory:
    """The rainbow-memory bank.

    Payload: `long_term.safetensors`, keys `<name>/image` (n, d) and `<name>/identity` (n, d'),
    unit-length features of the real pictures, no pixels; `short_term.safetensors`, key `latents`
    (m, C, h, w) for the m entries of `short_term`, absent in a release.
    """

    base: str
    long_term: tuple[Remembered, ...]
    short_term: tuple[Replayed, ...] = ()


@dataclass(frozen=True)
class Call:
    """Pictures that one call of the sampler drew. `bare`: by the base alone, without adapter."""

    bare: bool
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Drawn:
    """One shard of what a step draws ("score_memory" or "evaluate"), before anything is measured.

    Payload: `drawn.safetensors`, keys `<i>/pictures` (n, 3, H, W) uint8 for call i, and for
    score_memory `<i>/latents` (n, C, h, w). `shard` is "2/4": the second of four.
    """

    step: str
    shard: str
    base: str
    calls: tuple[Call, ...]


@dataclass(frozen=True)
class Adapter:
    """What a method learned.

    Payload: `adapter.safetensors` (weights of the adapter `kind`), `tokens.safetensors` (one key
    per concept name, (n, d) embedding rows), `method.safetensors` (what the method needs again at
    the next task; no file where it needs nothing), `curve.json` (losses per step).
    `settings` is what its kind (`adapters.kinds`) needs besides weights (rank, gate, ...).
    """

    method: str
    kind: str
    concepts: tuple[Concept, ...]
    base: str
    parent: str
    settings: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """What was measured on one picture: an entry of `values.json`, of a Scores or a Check door.

    `row` names the model that drew it, `concept` or `noun` what it shows; the other one is None.
    """

    row: str
    prompt: str
    seed: int
    metrics: Mapping[str, float]
    concept: str | None = None
    noun: str | None = None


@dataclass(frozen=True)
class Drift:
    """How far class prompts moved from the base, same seeds.

    `distance`: mean over seeds of 1 - cosine of image features, in [0, 2]. `kid`: unbiased squared
    MMD with the cubic polynomial kernel, times 1000; may be negative; None below two pictures.
    """

    row: str
    noun: str
    distance: float
    kid: float | None


@dataclass(frozen=True)
class Scores:
    """The task-by-task matrices of a line and everything measured with them.

    `rows[0]` is "base" (the pretrained model prompted with the class noun), then task ids.
    `matrices[metric][i][j]`: model after row i on concept j; None above the diagonal.
    Metrics: image_alignment, text_alignment, identity_similarity, identity_accuracy.
    `ceilings[metric][j]`: the mean similarity of concept j's real pictures with each other.
    Payload: `values.json` (one `Measurement` per evaluated picture),
    `sheets/<row>/<concept>.png` (a row of pictures), `sheets/<row>/class-<noun>.png`,
    `sheets/real/<concept>.png`, `sheets/base/class-<noun>.png`.
    """

    base: str
    rows: tuple[str, ...]
    concepts: tuple[Concept, ...]
    matrices: Mapping[str, Matrix]
    drift: tuple[Drift, ...]
    ceilings: Mapping[str, tuple[float | None, ...]]


# of the gate: is the new concept recognised, is every past one kept, do class words mean what they
# meant, do the new concept's pictures show what their prompts say
QUESTIONS = ("identity", "forgetting", "drift", "text")


@dataclass(frozen=True)
class Finding:
    """What the gate found on one of its QUESTIONS."""

    question: str
    passed: bool


@dataclass(frozen=True)
class Verdict:
    """The gate's answer. `reasons`: one sentence a question, with its numbers, passed or not.

    findings: one for each reason, in the same order. Older doors have none.
    """

    open: bool
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


SIGNS: Mapping[bool | None, str] = {True: "✓ ", False: "✕ ", None: ""}  # before a reason


def marked(
    reasons: Sequence[str], findings: Sequence[Finding]
) -> tuple[tuple[bool | None, str], ...]:
    """Each reason, and whether it passed; None where nothing says so."""
    if len(findings) != len(reasons):
        return tuple((None, reason) for reason in reasons)
    passed = [one.passed for one in findings]
    return tuple(zip(passed, reasons, strict=True))


def closed_by(findings: Sequence[Finding]) -> tuple[str, ...]:
    """The questions that closed a gate."""
    return tuple(one.question for one in findings if not one.passed)


@dataclass(frozen=True)
class Release:
    """Adapter + memory + scores + verdict: one registry version.

    Payload: the doors `adapter/`, `memory/` (long-term only) and `scores/`. `task` is "" and
    `concept` None for the empty release that a line starts from.
    """

    line: str
    task: str
    concept: Concept | None
    parent_version: int
    adapter: str
    memory: str
    scores: str
    verdict: Verdict


@dataclass(frozen=True)
class ConceptHealth:
    """One concept of a release that was checked. Scores are mean identity similarities.

    `released`: at its release; `again`: the same prompts and seeds now; `fresh`: other seeds.
    `moved`: largest difference of one picture between the first two. `drop`: the mean difference
    over its `pairs` pictures. `p`: probability that chance alone makes so large a drop, corrected
    for many concepts; 1 where nothing moved, 0 for a drop in the same environment, where chance
    plays no part. `needed`: how many pictures would decide; 0 if these do, or if no number would.
    """

    concept: str
    health: str
    released: float
    again: float
    fresh: float
    moved: float
    drop: float
    p: float
    pairs: int
    needed: int
    sentence: str


@dataclass(frozen=True)
class Check:
    """What a check of a release found: does it still draw what it drew?

    `health`: healthy, regressed or inconclusive. `cause`, "" if healthy: "model" (the bare base
    draws as before, the release does not), "environment" (the bare base moved, too), "base" (the
    base's files are others), "release" (the release's files are). `control`: how far the bare base
    moved, the largest difference in any cosine of one picture on the release's seeds. `row`: the
    release's own row.
    Payload: `values.json` (one `Measurement` per picture, rows `again` and `fresh`),
    `sheets/<concept>.png` (fresh pictures); none where nothing could be drawn.
    """

    base: str
    row: str
    seed: int
    health: str
    cause: str
    control: float
    findings: tuple[ConceptHealth, ...]
    reasons: tuple[str, ...]
