"""What schemathesis has to be told of the manager's contract, beyond /openapi.json; see .ci/contract."""

import json
import os
from datetime import datetime, timezone

import schemathesis
from hypothesis import strategies

# The `peer_id` of the manager's own record.
OWN = os.environ["OWN_PEER_ID"]

# Of what is generated without a need to be expressed: a watch does not end, so its answer cannot be awaited and held
# against a schema; and what is generated is not compressed.
LEFT_OUT = {"watch", "since", "Last-Event-ID", "Content-Encoding"}


@schemathesis.hook
def before_load_schema(context, schema):
    for path, method in [("/v1/peers", "get"), ("/v1/table", "post")]:
        operation = schema["paths"][path][method]
        operation["parameters"] = [it for it in operation["parameters"] if it["name"] not in LEFT_OUT]


def leaves_no_trace(value):
    """Whether nothing is sent of a value of a query."""
    if isinstance(value, dict):
        value = list(value.values())
    return value is None or (isinstance(value, list) and all(map(leaves_no_trace, value)))


@schemathesis.hook
def filter_query(context, query):
    """What breaks the schema and leaves no trace of it in a URL cannot be refused."""
    return not any(map(leaves_no_trace, (query or {}).values()))


@schemathesis.hook
def filter_case(context, case):
    """This pod's own record comes back when it is deleted, and is then there, as it should; and what answers hold is
    sent again where its schema fits, so that the end of a filter of the log becomes a contact that is yet to come."""
    is_own = OWN in (case.path_parameters or {}).values()
    return not (case.method == "DELETE" and is_own) and not is_yet_to_come(case.body)


def is_yet_to_come(body):
    """Whether a record in `body` has a last contact later than now, where that is a time at all."""
    if not isinstance(body, dict) or not isinstance(seen := body.get("lastConnectionOn"), str):
        return False
    try:
        return datetime.fromisoformat(seen) > datetime.now(timezone.utc)
    except (ValueError, TypeError):
        return False


# Nobody was seen before 1970, or is seen later than now: a bound that moves.
SEEN = strategies.datetimes(datetime(1970, 1, 1), datetime.now(), timezones=strategies.just(timezone.utc))
schemathesis.openapi.format("date-time", SEEN.map(datetime.isoformat))


@schemathesis.serializer("application/x-ndjson")
def to_lines(context, value):
    """A dump: what is generated is one of its lines, and each needs an id and the dump an end."""
    if isinstance(value, dict):
        value = {"peer_id": "line", **value}
    end = {"end": {"records": 1, "revision": "0"}}
    return "".join(json.dumps(line) + "\n" for line in (value, end)).encode()


@schemathesis.deserializer("application/x-ndjson")
def from_lines(context, response):
    """One line, as each keeps to the schema: the last, and in a dump that is the end."""
    return json.loads(response.text.splitlines()[-1])
