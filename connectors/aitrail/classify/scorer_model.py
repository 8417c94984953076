"""A transformer of the Prompt Guard class on this machine: an ONNX model and its tokenizer from a local directory.

The directory is what ``optimum-cli export onnx`` or ``save_pretrained`` leave behind: ``model.onnx`` (or
``onnx/model.onnx``), ``tokenizer.json``, and ``config.json`` with ``id2label``. Nothing is downloaded, ever. Texts
longer than the model's window are judged in overlapping windows, all of a call in one batch; the worst window counts.
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np
import onnxruntime
import tokenizers
from msgspec import Meta

from aitrail.classify.agreement import Opinion
from aitrail.classify.contract import Text
from aitrail.classify.scorer import Common, ScorerError
from aitrail.errors import ConfigError
from aitrail.ports import SecretResolver

# Names that models give to harmless text: Prompt Guard 1 and 2, ProtectAI, deepset, PIGuard.
_BENIGN: Final = frozenset(("benign", "safe", "legit", "label_0", "negative", "clean", "no_injection"))
_OVERLAP: Final = 64
_MAX_CHARS: Final = 100_000


class ModelSettings(Common, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``[classify.scorers.NAME]`` with ``type = "model"``: text stays on this machine."""

    directory: Annotated[str, Meta(description="Directory with model.onnx, tokenizer.json and config.json.")]
    threshold: Annotated[float, Meta(description="From which score on it is an attack.", gt=0, le=1)] = 0.5
    window: Annotated[int, Meta(description="Tokens that the model sees at once.", ge=16)] = 512
    windows: Annotated[int, Meta(description="Windows per call at most, of its beginning and its end.", ge=1)] = 8
    threads: Annotated[int, Meta(description="Cores that it may use.", ge=1)] = 1
    harmless: Annotated[
        tuple[str, ...], Meta(description="Labels that mean harmless; empty: the usual names (BENIGN, SAFE, LABEL_0).")
    ] = ()


class _ModelConfig(msgspec.Struct, frozen=True):
    id2label: dict[str, str] = {}


class ModelScorer:
    """Runs the model. Thread-safe; the same texts always give the same score."""

    def __init__(self, settings: ModelSettings, secrets: SecretResolver) -> None:
        del secrets
        self._settings = settings
        self.place = f"this machine, {settings.directory}"
        folder = Path(settings.directory)
        path = next((folder / name for name in ("model.onnx", "onnx/model.onnx") if (folder / name).is_file()), None)
        if path is None:
            raise ConfigError(
                f"there is no model.onnx in {folder}",
                hint="export one there: optimum-cli export onnx --model MODEL --task text-classification DIRECTORY",
            )
        self._harmless = _harmless(folder / "config.json", settings.harmless)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # noqa: BLE001 - both libraries raise plain exceptions of their own
            raise ConfigError(f"the model in {folder} cannot be loaded ({type(error).__name__})") from None
        overlap = min(_OVERLAP, settings.window // 4)
        self._tokenizer.enable_truncation(settings.window, stride=overlap)
        self._tokenizer.enable_padding()
        self._inputs = [item.name for item in self._session.get_inputs()]

    def ask(self, texts: Sequence[Text]) -> Opinion:
        """All windows of all texts in one batch."""
        windows: list[Any] = []
        for text in texts:
            whole = self._tokenizer.encode(text.text[:_MAX_CHARS].encode("utf-8", "replace").decode())
            windows += [whole, *whole.overflowing]
        if not windows:
            raise ScorerError("no_text")
        most = self._settings.windows
        if len(windows) > most:  # instructions stand at the beginning or at the end
            windows = [*windows[: most - most // 2], *windows[len(windows) - most // 2 :]]
        longest = max(len(window.ids) for window in windows)
        for window in windows:
            window.pad(longest)
        arrays = {
            "input_ids": [window.ids for window in windows],
            "attention_mask": [window.attention_mask for window in windows],
            "token_type_ids": [window.type_ids for window in windows],
        }
        # The run is told to end by its options; nothing else ends it, and a thread that is left behind would go on.
        running = onnxruntime.RunOptions()
        late = threading.Timer(self._settings.timeout_seconds, setattr, (running, "terminate", True))
        late.start()
        try:
            feed = {name: np.asarray(arrays[name], dtype=np.int64) for name in self._inputs}
            logits = np.asarray(self._session.run(None, feed, running)[0], dtype=np.float64)
        except Exception:  # noqa: BLE001 - a model that fails gives no verdict, whatever it raises
            raise ScorerError("timeout" if running.terminate else "failed") from None
        finally:
            late.cancel()
            late.join()
        score = self._attack(logits)
        return Opinion("", attack=score >= self._settings.threshold, score=round(score, 4))

    def _attack(self, logits: Any) -> float:
        """The largest share that any window gives to labels other than the harmless ones."""
        if logits.ndim != 2 or not np.isfinite(logits).all():
            raise ScorerError("unreadable")
        if logits.shape[1] == 1:  # one output: the logit of an attack
            return float((1.0 / (1.0 + np.exp(-logits))).max())
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        harmless = [label for label in self._harmless if label < logits.shape[1]]
        return float(1.0 - shares[:, harmless].sum(axis=1).min())

    def check(self) -> list[str]:
        """Judge a harmless sentence of our own."""
        try:
            self.ask([Text("prompt", "user", "What are your opening hours?")])
        except ScorerError as error:
            return [f"the model in {self._settings.directory} gives no score: {error.code}"]
        return []

    def close(self) -> None:
        """Nothing is kept open."""


def _harmless(path: Path, configured: Sequence[str]) -> list[int]:
    """Which outputs mean harmless."""
    try:
        labels = msgspec.json.decode(path.read_bytes(), type=_ModelConfig).id2label
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror})", hint="it names the model's labels") from None
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} does not name the model's labels: {error}") from None
    wanted = {name.lower() for name in configured} or _BENIGN
    found = [int(number) for number, name in labels.items() if name.lower() in wanted and number.isdecimal()]
    if not found and len(labels) != 1:
        raise ConfigError(
            f"no label of {path} is known to mean harmless: {', '.join(labels.values())}",
            hint="name it: harmless = [...]",
        )
    return found
