"""The rules of labels, which only an operator changes. Pure."""

from msgspec.structs import replace

from bus.contract.labels import MAX_LABELS, LabelsRequest
from bus.contract.messages import AgentEntry
from bus.errors import RefusedError


def changed(entry: AgentEntry, request: LabelsRequest) -> AgentEntry:
    """Returns the entry with the labels that the request sets and without those that it removes.

    Raises RefusedError: 400 for a value with control characters, 409 for too many labels.
    """
    labels = dict(entry.labels)
    for name, value in request.labels.items():
        if value is None:
            labels.pop(name, None)
            continue
        if not value.isprintable():
            raise RefusedError(400, f"the label {name} holds control characters")
        labels[name] = value
    if len(labels) > MAX_LABELS:
        raise RefusedError(409, f"a host has at most {MAX_LABELS} labels")
    return replace(entry, labels=labels)
