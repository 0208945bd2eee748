"""Triton's error answers, `{"error": "<text>"}`, and the texts that identify them."""

from __future__ import annotations

import json
import re
from typing import Final

DECOUPLED: Final = "doesn't support models with decoupled transaction policy"
"""Answer to `infer` if a model, or a step of an ensemble, has decoupled responses."""

POLL_FAILED: Final = "failed to poll from model repository"
"""Answer to loading a model whose files are refused; only the server's log says why."""

UNKNOWN_CODING: Final = "Unsupported compression type"
"""Answer, with status 501, to a request in a content coding that Triton does not read."""

NOT_ONE_RESPONSE: Final = "generate expects model to produce exactly 1 response, use generate stream for model that generates various number of responses"
"""Answer, with status 200, to `generate` if a decoupled model sent no response or several."""

RAISED: Final = "Failed to process the request(s) for model '"
"""Begins the answer to a request for which a Python model raised an exception, which quotes that."""

_LONGEST_ERROR_BYTES: Final = 128 * 1024
_LONGEST_OWN: Final = 4096

# Triton's core (model_lifecycle.cc) answers so while a model, or a step of an ensemble, is not loaded, draining or loading.
# The status is 404 or 503, and 400 for an ensemble; error bodies are never compressed.
_NOT_SERVED: Final = re.compile(
    r"(?:\[request id: [^\]]*\] )?(?P<ensembles>(?:in ensemble '[^']*', )*)Request for unknown model: '(?P<model>[^']*)' "
    r"(?:version \d+ )?(?:is not found|has no available versions|is not at ready state)"
)
# Triton's HTTP front end answers so, with status 500, to a request that it cannot read, before any model sees it: every error
# of its JSON library is INTERNAL (https://github.com/triton-inference-server/common, triton_json.h).
_MALFORMED: Final = re.compile(
    r"failed to parse the request JSON buffer: .+ at \d+"
    r"|Expected JSON object for keyword: 'parameters': attempt to .+"
    r"|(?:Converting keyword: 'parameters': )?(?:Unable to (?:parse|set) (?:'\w+'|JSON bytes array)|failed to get request params\.): attempt to .+"
    r"|(?:Converting keyword: 'parameters': )?Unable to parse 'data': Shape does not match true shape of 'data' field"
)
# Triton's core (sequence_batch_scheduler.cc) answers so, with status 400, before any model sees the request.
_NO_SEQUENCE: Final = re.compile(
    r"(?:\[request id: [^\]]*\] )?(?:in ensemble '[^']*', )*(?:\[request id: [^\]]*\] )?inference request for sequence .{1,200} to "
    r"model '[^']*' must specify the START flag on the first request of the sequence"
)
_ENSEMBLE: Final = re.compile(r"in ensemble '([^']*)'")
_CONTRACT: Final = re.compile(r"shape|data-type|inference input|expected \d+ inputs|unknown model")
_WHERE: Final = r"(?:\[request id: [^\]]*\] )?(?:in ensemble '[^']*', )*(?:\[request id: [^\]]*\] )?"
_OWN: Final = re.compile(
    _WHERE
    + "(?:Converting keyword: 'parameters': )?(?:"
    + "|".join(
        (
            # From Triton's HTTP front end, about the syntax of the request.
            r"failed to parse the request JSON buffer: [A-Za-z .,]+ at \d+",
            r"Unable to (?:parse|set) (?:'\w+'|JSON bytes array): [A-Za-z' .-]+",
            r"failed to get request params\.: [A-Za-z -]+",
            r"Expected JSON object for keyword: 'parameters': [A-Za-z -]+",
            r"Unable to parse 'data': Shape does not match true shape of 'data' field",
            r"The schema can not convert input '[^']*' to tensor with proper shape",
            re.escape(NOT_ONE_RESPONSE),
            r"parameter '[^']*' has invalid type\. It should be either 'int', 'bool', or 'string'\.",
            r"parameter keys starting with 'triton_' are reserved for Triton usage(?: and should not be specified\.|\. Only the .{1,200})",
            r"Input must set only one of the following fields: .{1,300}",
            r"failed to get model version from specified version string '[^']{1,64}' \(details: stol\), .{1,100}",
            r"requested model (?:'[^']*' |version )is not available(?: for model '[^']*')?",
            r"Unable to parse request",
            r"inference header size should be in range \(0, \d+\), got: \S+",
            r"Unsupported compression type|sending (?:FP16|BF16) data via JSON is not supported\. .{1,200}",
            r"unexpected (?:additional input data|size) for (?:input|model) '[^']*'(?:, .{1,200})?",
            r"class result not available for output due to unsupported type '\w+'",
            # From Triton's core, about its contents.
            r"expected \d+ inputs? but got \d+ inputs? for model '[^']*'\..{0,2000}",
            r"expected number of inputs between \d+ and \d+ but got \d+ inputs for model '[^']*'\..{0,2000}",
            r"unexpected (?:inference (?:input|output)|shape for input|datatype) (?:'[^']*+'|[^ ']++) .{1,500}",
            r"inference (?:input|output) '[^']*' .{1,300}",
            r"input '[^']*' .{0,100}for (?:model )?'[^']*'.{0,200}",
            r"input byte size mismatch for input '[^']*' for model '[^']*'\. Expected -?\d+, got \d+",
            r"All input dimensions should be specified for input '[^']*' for model '[^']*', got \[[-\d,]*\]",
            r"(?:expected|unexpected number of) \d* ?string elements \d* ?for inference input '[^']*'.{0,200}",
            r"inference request batch-size must be <= \d+ for '[^']*'",
            r"inference request (?:to model|for sequence) .{1,300}",
            r"string correlation ID cannot be longer than \d+ characters",
            # About the state of the server.
            r"Request for unknown model: .{1,300}|Exceeds maximum queue size|Request timeout expired",
            r"Unable to find shared memory region: '[^']*'",
        )
    )
    + ")"
)
_PATH: Final = re.compile(r"(?:^|[\s'\"(=:])(?:/|[A-Za-z]:\\)[\w.-]+[/\\]|\n")

_ENDED_MARK: Final = b"' is not healthy"
_ENDED_SEARCHED_BYTES: Final = 128 * 1024
_ENDED: Final = re.compile(rb"Stub process '([^']{1,512})' is not healthy")


def error_text(body: bytes) -> str | None:
    """Return the text of an error answer; None if the body is not in the protocol's error format.

    A body larger than 128 KiB is not parsed, as that would block the event loop.
    """
    if len(body) > _LONGEST_ERROR_BYTES:
        return None
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    text = document.get("error") if isinstance(document, dict) else None
    return text if isinstance(text, str) else None


def reason(body: bytes) -> str:
    """Return the text of an error answer, or its whole body if it is not in the protocol's error format."""
    text = error_text(body)
    return body.decode(errors="replace") if text is None else text


def ended_stub(status: int, body: bytes) -> str | None:
    """Return the instance of a Python model whose process, its *stub*, has ended; None if an answer does not say so.

    Triton does not restart a stub: it gives this answer to every further request to that instance, after a second, while the
    model stays READY. Reloading the model replaces the stub (docs/triton.md).

    An instance is `<instance group>_<number>`, where a group without a name is `<model>_<number>`. In an ensemble it is the
    step's: `in ensemble 'e', Stub process 'step_0_0' is not healthy.` The error of a model that called one whose stub has
    ended contains the same words.
    """
    if status != 500 or _ENDED_MARK not in body:
        return None
    found = _ENDED.search(body, 0, _ENDED_SEARCHED_BYTES)
    return found[1].decode(errors="replace") if found else None


def is_ended_stub(text: str) -> bool:
    """Return whether a whole error text is Triton's about a stub that has ended: to `generate`, with status 400."""
    return len(text) <= _LONGEST_OWN and _ENDED.fullmatch(text.rstrip(".").encode()) is not None


def unserved_model(text: str) -> str | None:
    """Return the model that, according to Triton, is not served there now, or has such a step; None for another text.

    The whole text has to be Triton's: a model's own error may quote it.
    """
    match = _NOT_SERVED.fullmatch(text)
    if match is None:
        return None
    outermost = _ENSEMBLE.match(match["ensembles"])
    return outermost[1] if outermost else match["model"]


def is_unknown_sequence(text: str) -> bool:
    """Return whether a text is Triton's (with status 400) for a sequence that it does not have."""
    return _NO_SEQUENCE.fullmatch(text) is not None


def is_malformed_request(text: str) -> bool:
    """Return whether a text is Triton's (with status 500) for a request that it cannot read."""
    return _MALFORMED.fullmatch(text) is not None


def tells_of_contract(text: str) -> bool:
    """Return whether an error may mean that the request's tensors do not fit the model."""
    return _CONTRACT.search(text) is not None


def is_tritons_own(text: str | None) -> bool:
    """Return whether an error text is one of Triton's own for an unsuitable request, without a file path in it.

    A text longer than Triton's own quotes the request. It is not matched, which could take seconds.
    """
    if text is None or len(text) > _LONGEST_OWN:
        return False
    return _OWN.fullmatch(text) is not None and _PATH.search(text) is None
