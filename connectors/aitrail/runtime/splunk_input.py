"""Modular inputs of the Splunk add-on: splunkd starts this once per input and interval, and reads its standard output.

``--scheme`` describes the form, ``--validate-arguments`` checks what was entered, and without an argument the input
runs: it polls its source until there is nothing more, gives the events to splunkd, and ends. A cursor is written only
after splunkd has read the events; killed at any moment, the next run reads again what has no cursor yet, under the same
event ids. The protocol's source: Splunk developer guide, "Modular inputs", and splunk-sdk, which speaks it.

Standard error is splunkd's log (``index=_internal component=ExecProcessor``): names, numbers and reasons, no content.
"""

import os
import sys
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from splunklib.modularinput import Argument, EventWriter, InputDefinition, Scheme, Script, ValidationDefinition

from aitrail.errors import AitrailError
from aitrail.printing import printable
from aitrail.splunk_schemes import BY_NAME

if TYPE_CHECKING:
    from aitrail.runtime.scheduled.splunk_passwords import Passwords
    from aitrail.runtime.scheduled.splunk_settings import Input

_TEXT, _NUMBER = Argument.data_type_string, Argument.data_type_number


class AccessInput(Script):  # type: ignore[misc]  # splunk-sdk has no types
    """One kind of input.

    Args:
        scheme: which (``splunk_schemes``).

    Attributes:
        failed: something went wrong in a run; splunkd is told by the exit code.
    """

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self._scheme = BY_NAME[scheme]
        self.failed = False

    def get_scheme(self) -> Scheme:
        """What Splunk shows and passes on."""
        scheme = Scheme(self._scheme.title)
        scheme.description = self._scheme.description
        scheme.use_external_validation = True
        scheme.use_single_instance = False
        for one in self._scheme.args:
            kind = _NUMBER if one.kind == "number" else _TEXT
            scheme.add_argument(
                Argument(one.name, one.description, data_type=kind, required_on_create=one.required, title=one.title)
            )
        return scheme

    def validate_input(self, definition: ValidationDefinition) -> None:
        """Check the settings and ask the source once; raises ``ValueError`` with what Splunk shows to the person."""
        from aitrail.runtime.scheduled.splunk_passwords import Passwords  # noqa: PLC0415  (not for --scheme)
        from aitrail.runtime.scheduled.splunk_run import check  # noqa: PLC0415
        from aitrail.runtime.scheduled.splunk_settings import read  # noqa: PLC0415

        try:
            one = read(self._scheme, str(definition.metadata.get("name") or ""), definition.parameters)
            given = {one.entry(arg): value for arg, value in one.secrets().items()}
            problems = check(one, Passwords(self.service, given), definition.metadata)
        except AitrailError as error:
            raise ValueError(printable(error.sentence)) from None
        except Exception as bug:  # noqa: BLE001  (its text could hold what was entered)
            raise ValueError(_bug(bug)) from None
        if problems:
            raise ValueError(printable("; ".join(problems)))

    def stream_events(self, inputs: InputDefinition, ew: EventWriter) -> None:
        """Run every input that splunkd names (it names one); what is wrong with one does not stop the others."""
        from aitrail.runtime.scheduled.splunk_settings import read  # noqa: PLC0415  (not for --scheme)

        for stanza, given in inputs.inputs.items():
            try:
                one = read(self._scheme, stanza, given)
                self._run(one, inputs.metadata, ew)
            except AitrailError as error:
                self._failure(ew, f"{stanza}: {error.sentence}")
            except BrokenPipeError:
                raise
            except Exception as bug:  # noqa: BLE001  (its text could hold content; nothing is committed)
                self._failure(ew, f"{stanza}: {_bug(bug)}")

    def _run(self, one: "Input", metadata: Mapping[str, str], ew: EventWriter) -> None:
        from aitrail.runtime.scheduled.splunk_passwords import Passwords  # noqa: PLC0415  (not for --scheme)
        from aitrail.runtime.scheduled.splunk_run import run  # noqa: PLC0415

        passwords = Passwords(self.service)
        self._take_secrets(one, passwords, ew)
        done = run(one, passwords, metadata, ew, sys.stdout)
        if done is None:
            _log(ew, EventWriter.WARN, f"{one.stanza}: the run before is still at work; this one ends")
            return
        for text in done.lines():
            _log(ew, EventWriter.INFO, text)
        for text in done.failures():
            self._failure(ew, text)

    def _take_secrets(self, one: "Input", passwords: "Passwords", ew: EventWriter) -> None:
        """Move secrets out of ``inputs.conf``; splunkd then starts the input anew."""
        found = one.secrets()
        for arg, value in found.items():
            passwords.keep(one.entry(arg), value)
        if found:
            try:
                passwords.mask(one.scheme.name, one.name, found)
            except AitrailError as error:
                said = f"{one.stanza}: a secret stays readable in inputs.conf: {error.sentence}"
                _log(ew, EventWriter.WARN, said)

    def _failure(self, ew: EventWriter, text: str) -> None:
        self.failed = True
        _log(ew, EventWriter.ERROR, text)


def _bug(error: BaseException) -> str:
    """What is no error of ours: its kind and its place, never its text."""
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {os.path.basename(last[0].filename)}:{last[0].lineno}" if last else ""  # noqa: PTH119  (a text)
    return f"a bug: {type(error).__name__}{place}"


def _log(ew: EventWriter, severity: str, text: str) -> None:
    ew.log(severity, printable(text))


def main(scheme: str, argv: list[str], stdin: Any = None) -> int:
    """The whole program; gives the exit code: 0 done, 1 something is wrong (and on standard error what)."""
    script = AccessInput(scheme)
    try:
        code: int = script.run_script(argv, EventWriter(sys.stdout, sys.stderr), stdin or sys.stdin)
        sys.stdout.flush()
    except BrokenPipeError:
        code = 1
        # What is left in the buffer goes nowhere: Python would fail over it once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code or int(script.failed)
