"""Labels: what an operator says of a host, such as its site, owner or rack.

A host tells its metadata when it registers. A label of the same name comes before that, so that a
host cannot move itself to another site. Hosts are found, grouped, alerted and booked by both alike.
"""

from typing import Annotated

from msgspec import Meta

from bus.contract.messages import Message
from bus.contract.subjects import END

LABEL_PATTERN = r"^[A-Za-z0-9_.-]{1,64}=.{1,128}" + END
Label = Annotated[str, Meta(pattern=LABEL_PATTERN)]  # a name and a value, such as `site=FRA`
MAX_LABELS = 50  # of one host
LabelName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}" + END)]
LabelValue = Annotated[str, Meta(min_length=1, max_length=128)]


class LabelsRequest(Message, kw_only=True, frozen=True):
    """Sets the labels that it names, and removes those whose value is None.

    `author` is who asks, for the audit log; `audited` is as in ChangeRequest.
    """

    labels: Annotated[dict[LabelName, LabelValue | None], Meta(min_length=1, max_length=MAX_LABELS)]
    author: Annotated[str, Meta(max_length=200)] = ""
    audited: bool = False
