"""What a run has come to so far: an entry an epoch, and the answers of the score that counts."""

from dataclasses import dataclass, field

from san.answers import Answers, unpack_answers
from san.score import EpochEntry, Score, best_of, check_history, scores_of


@dataclass(frozen=True)
class Evaluation:
    """A score, and whether each image was answered right: bool `(N,)`, in the split's order."""

    score: Score
    answers: Answers


@dataclass
class History:
    """The epochs of a run so far.

    images: how many a score counts. counts_best: whether the best score counts, the first of
    several; else the last one does. answers: of the score that counts; None before there is one.
    """

    images: int
    counts_best: bool = False
    entries: list[EpochEntry] = field(default_factory=list)
    answers: Answers | None = None

    @property
    def curve(self) -> list[Score]:
        """The scores by epoch."""
        return scores_of(self.entries)

    @property
    def best(self) -> Score:
        """The score with the most right answers, the first of several."""
        return best_of(self.curve)

    def add(
        self,
        epoch: int,
        train_loss: float | None = None,
        lr: float | None = None,
        evaluation: Evaluation | None = None,
    ) -> None:
        """Add the epoch just done. evaluation: None where it was not evaluated."""
        if evaluation is None:
            self.entries.append(EpochEntry(epoch, train_loss, lr))
            return
        score = evaluation.score
        self.entries.append(EpochEntry(epoch, train_loss, lr, score))
        if not self.counts_best or self.best is score:
            self.answers = evaluation.answers

    def check_saved(self, entries: list[EpochEntry], done: int) -> None:
        """Raise ValueError unless a run that has `done` epochs behind it could have these."""
        check_history(entries)
        epochs = [entry.epoch for entry in entries]
        was_trained = all(entry.train_loss is not None for entry in entries)
        if epochs != list(range(1, done + 1)) or not was_trained:
            raise ValueError(f"its history has epochs {epochs}; {done} were trained")
        if any(score.total != self.images for score in scores_of(entries)):
            raise ValueError(f"its scores do not count {self.images} images")

    def unpack_saved(self, entries: list[EpochEntry], packed: bytes | None) -> Answers | None:
        """Return the answers saved with entries; raise ValueError where they cannot be theirs.

        packed: None where there was no score yet.
        """
        scores = scores_of(entries)
        if not scores or packed is None:
            if scores or packed is not None:
                raise ValueError("it has answers without a score, or a score without answers")
            return None
        return unpack_answers(packed, best_of(scores) if self.counts_best else scores[-1])

    def restore(self, entries: list[EpochEntry], answers: Answers | None) -> None:
        """Go on from what was saved."""
        self.entries[:] = entries
        self.answers = answers
