"""Vowpal Wabbit itself: its arguments checked, its models as bytes, and never a word printed."""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from vowpalwabbit.pyvw import pylibvw

from penstock.errors import BadRecord, ConfigError, PenstockError, StoreError

__all__ = ["Option", "Workspace", "check_flags", "not_saved"]

# Without the second, VW saves of several models (one a class, say) only the first one's running scale, and
# without the third it forgets its counters: learning would not go on as if nothing had happened.
_ALWAYS: Final = ("--quiet", "--per_model_save_load", "--preserve_performance_counters")

_names_in = re.compile(r"\w+").findall
_REFUSED: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        _names_in("""
            data daemon foreground port num_children pid_file port_file sendto cache cache_file kill_cache
            compressed json dsjson csv flatbuffer initial_regressor final_regressor readable_model invert_hash
            dump_json_weights_experimental save_per_pass output_feature_regularizer_binary
            output_feature_regularizer_text input_feature_regularizer feature_mask predictions raw_predictions
            extra_metrics audit audit_regressor dictionary dictionary_path span_server span_server_port search
            search_allowed_transitions active active_cover simulation print epsilon_decay_audit csa_debug help
            version
        """),
        "reads, writes, prints or listens outside of the learner",
    ),
    **dict.fromkeys(
        _names_in("dropout lrqdropout oaa_subsample subsample sparse_weights predict_only_model"),
        "keeps something that VW does not save, so that learning could not be resumed exactly",
    ),
    **dict.fromkeys(
        _names_in("bootstrap alg"),
        "draws random numbers when it predicts, so that looking would change the learner",
    ),
    **dict.fromkeys(
        _names_in("testonly passes bfgs conjugate_gradient holdout_after dry_run"),
        "is for learning in several passes, or for not learning",
    ),
    "named_labels": "names classes, which are numbered here",
    "indexing": "numbers classes, which count from 1 here",
    "scores": "gives no probabilities: write --probabilities --loss_function logistic",
}
_SHORT: Final = {
    "a": "audit",
    "c": "cache",
    "d": "data",
    "f": "final_regressor",
    "h": "help",
    "i": "initial_regressor",
    "k": "kill_cache",
    "p": "predictions",
    "r": "raw_predictions",
    "t": "testonly",
}
# Reductions that were seen to go on from a saved model, made with the flags above, as if nothing had
# happened: the same predictions, and the same bytes when saved again.
_EXACT: Final = frozenset(
    _names_in("""
        gd ftrl freegrad generate_interactions scorer count_label nn boosting lrq lrqfa marginal interact
        baseline confidence binary classweight oaa ect log_multi recall_tree
        csoaa_ldf cb_adf shared_feature_merger cb_explore_adf_greedy cb_explore_adf_first cb_explore_adf_bag
        cb_explore_adf_cover cb_explore_adf_synthcover cb_explore_adf_squarecb cb_explore_adf_regcb
        cb_explore_adf_softmax cb_explore_adf_rnd
    """)
)
# What a saved model has in it although VW does not say so; given again it would be applied twice, or clash.
_SAVED: Final = frozenset(
    _names_in("""
        bit_precision ngram skips random_seed initial_weight random_weights normal_weights
        truncated_normal_weights constant no_stdin
    """)
) | {flag.removeprefix("--") for flag in _ALWAYS}


def check_flags(tokens: Sequence[str]) -> set[str]:
    """Return the names of the flags in `tokens`, if all of them can be used.

    Raises
    ------
    ConfigError
        Names the first that cannot, and why.
    """
    names = set()
    for before, token in zip((None, *tokens), tokens, strict=False):
        if not token.startswith("-") and not (before or "").startswith("-"):
            raise ConfigError(f"vw: expected options, got {token!r}, which VW would read as a data file")
        if token.startswith("--"):
            shown, name = token.partition("=")[0], token[2:].partition("=")[0]
        elif token.startswith("-") and token[1:2] in _SHORT:
            name = _SHORT[token[1]]
            shown = f"{token[:2]} (--{name})"
        else:
            continue
        if name in _REFUSED:
            raise ConfigError(f"vw: {shown} {_REFUSED[name]}")
        names.add(name)
    return names


@dataclass(frozen=True, slots=True)
class Option:
    """One option as VW understood it."""

    name: str
    value: Any
    supplied: bool
    kept: bool  # VW writes it into the model

    @classmethod
    def read(cls, name: str, *fields: Any) -> Option:
        """Take what VW hands over for each option."""
        _help, _short, kept, _necessary, _allow_override, value, supplied = fields[:7]
        return cls(name, value, supplied, kept)

    def tokens(self) -> list[str]:
        """Return it as arguments."""
        if self.value is True:
            return [f"--{self.name}"]
        values = self.value if isinstance(self.value, list) else [self.value]
        return [token for value in values for token in (f"--{self.name}", str(value))]


def not_saved(options: Mapping[str, Option]) -> list[str]:
    """Arguments that have to be given again with a saved model."""
    return [
        token
        for option in options.values()
        if option.supplied and not option.kept and option.value is not False and option.name not in _SAVED
        for token in option.tokens()
    ]


class _Silence:
    """Takes what VW would print."""

    def log(self, message: str) -> None:
        """Forget it: what is wrong comes as an exception."""


# One for all, alive to the end: VW may log while it is torn down.
_SILENCE: Final = pylibvw.vw_log(_Silence())


def _started(arguments: list[str], kind: type[PenstockError], what: str) -> Any:
    try:
        return pylibvw.vw(arguments, _SILENCE)
    except (RuntimeError, MemoryError) as error:
        raise kind(f"{what}: {str(error).strip()}") from error


class Workspace:
    """One VW: text in, raw predictions out. For one thread.

    Parameters
    ----------
    tokens : sequence of str
        Arguments, beside those that are always given.
    model : bytes, optional
        What `save` returned, to go on from there.
    """

    def __init__(self, tokens: Sequence[str], model: bytes | None = None) -> None:
        arguments = [*_ALWAYS, *tokens]
        if model is None:
            self._vw: Any = _started(arguments, ConfigError, f"vw: {' '.join(tokens)}")
        else:
            _check_header(model)
            with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
                path = os.path.join(directory, "model")
                with open(path, "wb") as file:
                    file.write(model)
                self._vw = _started([*arguments, "-i", path], StoreError, "vw cannot read its model")
        self._raw = self._reader()

    def _reader(self) -> Callable[[Any], Any]:
        readers: Mapping[int, Callable[[Any], Any]] = {
            pylibvw.vw.pSCALAR: pylibvw.example.get_simplelabel_prediction,
            pylibvw.vw.pPROB: pylibvw.example.get_prob,
            pylibvw.vw.pMULTICLASS: pylibvw.example.get_multiclass_prediction,
            pylibvw.vw.pSCALARS: pylibvw.example.get_scalars,
            pylibvw.vw.pMULTICLASSPROBS: pylibvw.example.get_scalars,
            pylibvw.vw.pACTION_PROBS: pylibvw.example.get_action_scores,
        }
        return readers.get(self.prediction_type, lambda example: None)

    @property
    def label_type(self) -> int:
        """Which kind of label its examples have: one of pylibvw's ``l...``."""
        return int(self._vw._get_label_type())

    @property
    def prediction_type(self) -> int:
        """Which kind of prediction it gives: one of pylibvw's ``p...``."""
        return int(self._vw._get_prediction_type())

    @property
    def takes_one_line(self) -> bool:
        """Whether an example is one line, not several."""
        return not self._vw._is_multiline()

    def check_resumable(self) -> None:
        """Raise `ConfigError` if it has a reduction of which it is not known that `save` keeps all."""
        for name in self._vw.get_enabled_learners():
            if name.partition("-")[0] not in _EXACT:
                raise ConfigError(
                    f"vw: {name} is not known to go on from a saved model as if nothing had happened"
                )

    def predict(self, text: str) -> Any:
        """Predict an example, and leave no trace: it is not counted either.

        Raises
        ------
        BadRecord
            If VW cannot read it.
        """
        try:
            example = pylibvw.example(self._vw, pylibvw.vw.lDefault, text)
            self._vw.predict(example)
        except RuntimeError as error:
            raise BadRecord(f"text that vw can read ({error})", text) from error
        return self._raw(example)

    def progress(self, text: str) -> Any:
        """Predict an example that has a label, then learn it.

        Raises
        ------
        BadRecord
            If VW cannot read it, or learn from it.
        """
        vw = self._vw
        try:
            examples = vw._parse(text)
            try:
                if len(examples) != 1:
                    raise BadRecord("one line of text for vw", text)
                vw.predict(examples[0])
                raw = self._raw(examples[0])
                vw.learn(examples[0])
            finally:
                for example in examples:
                    vw._finish_example(example)
        except RuntimeError as error:
            raise BadRecord(f"text that vw can learn from ({error})", text) from error
        return raw

    def predict_lines(self, lines: Sequence[str]) -> Any:
        """Predict an example of several lines; leaves no trace, as `predict`.

        Raises
        ------
        BadRecord
            If VW cannot read it.
        """
        vw = self._vw
        try:
            examples = [pylibvw.example(vw, pylibvw.vw.lDefault, line) for line in lines]
            vw.predict_multi(examples)
        except RuntimeError as error:
            raise BadRecord(f"text that vw can read ({error})", lines[0]) from error
        return self._raw(examples[0])

    def learn_lines(self, lines: Sequence[str]) -> None:
        """Learn an example of several lines.

        Raises
        ------
        BadRecord
            If VW cannot read it, or learn from it.
        """
        vw = self._vw
        try:
            examples = vw._parse("\n".join([*lines, "", ""]))
            try:
                vw.learn_multi(examples)
            finally:
                vw._finish_example_multi_ex(examples)
        except RuntimeError as error:
            raise BadRecord(f"text that vw can learn from ({error})", lines[0]) from error

    def options(self) -> dict[str, Option]:
        """Every option that VW knows, as it understood the arguments."""
        groups = self._vw.get_options(Option.read, False)
        return {
            option.name: option
            for reductions in groups.values()
            for _, options in reductions
            for option in options
        }

    def save(self) -> bytes:
        """Return all that it knows, in VW's model format.

        Raises
        ------
        StoreError
            If it cannot write below the directory for temporary files.
        """
        with tempfile.TemporaryDirectory(prefix="penstock-") as directory:
            path = os.path.join(directory, "model")
            try:
                self._vw.save(path)
                with open(path, "rb") as file:
                    return file.read()
            except (RuntimeError, OSError) as error:
                raise StoreError(f"vw cannot save its model below {directory}: {error}") from error

    def close(self) -> None:
        """Free what VW holds; nothing can be asked afterwards."""
        self._vw.finish()
        self._vw = None

    def __del__(self) -> None:
        if getattr(self, "_vw", None) is not None:
            self.close()


def _check_header(model: bytes) -> None:
    """Refuse a model whose own options would make VW read or write files when it is loaded.

    Raises
    ------
    StoreError
        If there are such options, or `model` is not in VW's format.
    """
    try:
        check_flags(_own_options(model).split())
    except (struct.error, UnicodeDecodeError) as error:
        raise StoreError(f"not a VW model: {error}") from error
    except ConfigError as error:
        raise StoreError(f"this VW model cannot be used: {error}") from error


def _own_options(model: bytes) -> str:
    """Return the arguments that VW wrote into a model, from its header."""
    position = 0
    for _ in range(2):  # version, identifier
        position += 4 + _uint32(model, position)
    position += 1 + 4 + 4 + 4 + 4  # "m", lowest label, highest label, bits, lda
    for _ in range(2):  # n-grams, skips: three characters each
        position += 4 + 3 * _uint32(model, position)
    length = _uint32(model, position)
    (options,) = struct.unpack_from(f"{length}s", model, position + 4)
    return str(options.rstrip(b"\0").decode())


def _uint32(data: bytes, position: int) -> int:
    return int(struct.unpack_from("<I", data, position)[0])
